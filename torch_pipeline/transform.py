"""Feature transformation: statistics fitted once over the train split, baked into the model."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Split
from pipelines.workloads import Workload

__all__ = ["fit_transform", "load_transform"]

Tensors = dict[str, Tensor]
_FITTED_NAME = "fitted.pt"


def fit_transform(workload: Workload, dataset: Dataset, output: Path) -> None:
    """Fit the transform on the train split and apply it to every split.

    Writes ``output/transform_fn`` for ``load_transform``, and transformed examples as Parquet
    under ``output/split=<split>``.
    """
    config = workload.transform_config()
    fitted = _side(workload.name).fit(_columns(workload, dataset, "train"), config)
    folder = output / "transform_fn"
    folder.mkdir(parents=True)
    torch.save(
        {"workload": workload.name, "config": config, "fitted": fitted}, folder / _FITTED_NAME
    )
    transform = load_transform(folder)
    for split in dataset.manifest.split_shares:
        transformed = transform(_columns(workload, dataset, split))
        table = pa.table({name: _as_arrow(values) for name, values in transformed.items()})
        (output / f"split={split}").mkdir()
        pq.write_table(table, output / f"split={split}" / "transformed_examples.parquet")


def load_transform(folder: Path) -> Callable[[Tensors], Tensors]:
    """The fitted transform, as a module that an exported model can carry."""
    saved = torch.load(folder / _FITTED_NAME, weights_only=True)
    return _Transform(saved["workload"], saved["config"], saved["fitted"])


class _Transform(nn.Module):
    def __init__(self, workload: str, config: dict[str, Any], fitted: Tensors) -> None:
        super().__init__()
        self._side = _side(workload)
        self._config = config
        for name, values in fitted.items():
            self.register_buffer(name, values)

    def forward(self, raw: Tensors) -> Tensors:
        transformed: Tensors = self._side.preprocess(raw, self._config, dict(self.named_buffers()))
        return transformed


def _side(workload: str) -> Any:
    return import_module(f"torch_pipeline.workloads.{workload}")


def _columns(workload: Workload, dataset: Dataset, split: Split) -> Tensors:
    """The columns that the workload reads, strings as codes."""
    columns = mapped_columns(dataset, split)
    return {name: torch.tensor(columns[name]) for name in workload.columns}


def _as_arrow(values: Tensor) -> pa.Array:
    flat = pa.array(values.numpy().reshape(-1))
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, values[0].numel())
