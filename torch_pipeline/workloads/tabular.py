"""``tabular`` in PyTorch."""

from typing import Any

import torch
from torch import Tensor, nn

from pipelines.ingest.columns import MISSING
from pipelines.workloads.base import TARGET
from pipelines.workloads.tabular import LEAST_DEVIATION, Tabular
from torch_pipeline.activation import gelu

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, Tensor]


def build_network(workload: Tabular, recompute: bool = False) -> nn.Module:
    """The network, untrained: ``numbers`` (batch, n) and ``codes`` (batch, c) to (batch,).

    It has no blocks to recompute: the workload refuses ``recompute``.
    """
    return _Dlrm(workload)


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Mean and standard deviation of each numeric column's present values: (columns,), float64."""
    if not config["numeric"]:
        return {}
    columns = [inputs[name].reshape(-1).double() for name in config["numeric"]]
    present = [values[torch.isfinite(values)] for values in columns]
    return {
        "mean": torch.stack([values.mean() for values in present]),
        "deviation": torch.stack([values.std(correction=0) for values in present]),
    }


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """``numbers``, ``codes`` and, if the label is given, ``target``."""
    if config["numeric"]:
        features = {"numbers": _standardised(inputs, config, fitted)}
    else:
        any_input = inputs[config["categories"][0]["column"]]
        features = {"numbers": torch.ones_like(any_input.reshape(-1, 1), dtype=torch.float32)}
    if config["categories"]:
        codes = [_codes(inputs[category["column"]], category) for category in config["categories"]]
        features["codes"] = torch.stack(codes, dim=1)
    if config["label"] in inputs:
        features[TARGET] = _target(inputs, config)
    return features


class _Dlrm(nn.Module):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Tabular) -> None:
        super().__init__()
        self._bottom = [layer.name for layer in workload.bottom_layers]
        self._embeddings = [category.layer for category in workload.categories]
        self._top = [layer.name for layer in workload.top_layers]
        for category in workload.categories:
            embedding = nn.Embedding(category.rows, workload.size.embedding_width)
            self.add_module(category.layer, embedding)
        for layer in (*workload.bottom_layers, *workload.top_layers, workload.head):
            self.add_module(layer.name, nn.Linear(layer.inputs, layer.outputs))

    def forward(self, features: Tensors) -> Tensor:
        """Logits (batch,) of ``numbers`` (batch, n) and ``codes`` (batch, c)."""
        x = features["numbers"]
        for name in self._bottom:
            x = gelu(self.get_submodule(name)(x))
        if self._embeddings:
            codes = features["codes"]
            embedded = [
                self.get_submodule(name)(codes[:, place])
                for place, name in enumerate(self._embeddings)
            ]
            x = torch.cat([x, self._interactions([x, *embedded])], dim=1)
        for name in self._top:
            x = gelu(self.get_submodule(name)(x))
        return self.get_submodule("head")(x).squeeze(1)

    def _interactions(self, vectors: list[Tensor]) -> Tensor:
        """Dot products of pairs of vectors (batch, width): (batch, pairs)."""
        stacked = torch.stack(vectors, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        # Made here, where they belong to the device: DDP would send a buffer around at every step.
        rows, places = torch.tril_indices(
            len(vectors), len(vectors), offset=-1, device=products.device
        )
        return products.flatten(start_dim=1).index_select(1, rows * len(vectors) + places)


def _standardised(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensor:
    values = torch.stack([inputs[name].reshape(-1).double() for name in config["numeric"]], dim=1)
    mean, deviation = fitted["mean"], fitted["deviation"]
    deviation = torch.where(deviation > LEAST_DEVIATION * mean.abs(), deviation, 1.0)
    missing = ~torch.isfinite(values)
    standardised = torch.where(missing, 0.0, (values - mean) / deviation)
    places = [config["numeric"].index(name) for name in config["indicated"]]
    return torch.cat([standardised, missing[:, places].double()], dim=1).float()


def _codes(column: Tensor, category: dict[str, Any]) -> Tensor:
    """Rows of a category's embedding; 0 for missing and unknown values: (batch,), int64."""
    values = column.reshape(-1)
    if category["vocabulary"]:
        return values.long() + 1
    missing = values == MISSING if category["is_text"] else ~torch.isfinite(values)
    codes = torch.where(missing, 0, values).long()
    return torch.where(missing, 0, codes % category["values"] + 1)


def _target(inputs: Tensors, config: dict[str, Any]) -> Tensor:
    label = inputs[config["label"]].reshape(-1).float()
    rule = config["positive_over"]
    if rule is None:
        return label
    over = inputs[rule["column"]].reshape(-1).float()
    return (label > torch.tensor(rule["share"], dtype=torch.float32) * over).float()
