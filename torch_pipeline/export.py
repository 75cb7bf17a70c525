"""Export: one ``torch.export`` program that takes raw columns, the fitted transform inside."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.dataset import Dataset
from pipelines.workloads import Workload
from torch_pipeline.transform import load_transform

__all__ = ["CONFIG_NAME", "MODEL_NAME", "export"]

MODEL_NAME = "model.pt2"
CONFIG_NAME = "transform_config.json"


def export(
    workload: Workload, model: nn.Module, transform: Path, dataset: Dataset, output: Path
) -> None:
    """Write the model, with the transform fitted in the folder ``transform``, to ``output``.

    ``model.pt2`` takes the workload's ``served_columns`` by name, with batches first, and returns
    probabilities. Strings are given as codes, since a program of tensors knows no text:
    ``transform_config.json`` has the vocabularies.
    """
    output.mkdir(parents=True, exist_ok=True)
    columns = mapped_columns(dataset, "eval")
    raw = {name: torch.tensor(columns[name][:2]) for name in workload.served_columns}
    served = _Served(workload, model, transform).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        served, (raw,), dynamic_shapes={"raw": {name: {0: batch} for name in raw}}
    )
    torch.export.save(program, output / MODEL_NAME)
    (output / CONFIG_NAME).write_text(json.dumps(workload.transform_config(), indent=2) + "\n")


class _Served(nn.Module):
    def __init__(self, workload: Workload, model: nn.Module, transform: Path) -> None:
        super().__init__()
        self._model = model.cpu()
        self._transform = load_transform(transform)
        self._features = tuple(workload.features)
        self._loss = workload.loss

    def forward(self, raw: dict[str, Tensor]) -> Tensor:
        columns = self._transform(raw)
        logits = self._model({name: columns[name] for name in self._features})
        return torch.sigmoid(logits) if self._loss == "sigmoid" else torch.softmax(logits, dim=-1)
