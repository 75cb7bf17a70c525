"""Feature transformation: statistics fitted once over the train split, baked into the model."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from pipelines.ingest.dataset import Dataset
from pipelines.workloads import Vision

__all__ = ["fit_transform", "load_transform"]

Tensors = dict[str, Tensor]
_FITTED_NAME = "fitted.json"


def fit_transform(workload: Vision, dataset: Dataset, output: Path) -> None:
    """Fit the transform on the train split and apply it to every split.

    The feature is standardised by mean and standard deviation of all its elements over the train
    split; other columns than feature and label are dropped. Writes ``output/transform_fn`` for
    ``load_transform``, and transformed examples as Parquet under ``output/split=<split>``.
    """
    values = dataset.columns("train")[workload.feature].astype(np.float64)
    fitted = output / "transform_fn"
    fitted.mkdir(parents=True)
    statistics = {"mean": float(values.mean()), "std": float(values.std())}
    (fitted / _FITTED_NAME).write_text(json.dumps(statistics))
    transform = load_transform(fitted)
    for split in dataset.manifest.split_shares:
        columns = dataset.columns(split)
        transformed = transform({workload.feature: torch.tensor(columns[workload.feature])})
        flat = transformed[workload.feature].numpy().reshape(-1)
        images = pa.FixedSizeListArray.from_arrays(pa.array(flat), workload.elements_per_example)
        table = pa.table({workload.feature: images, workload.label: columns[workload.label]})
        (output / f"split={split}").mkdir()
        pq.write_table(table, output / f"split={split}" / "transformed_examples.parquet")


def load_transform(folder: Path) -> Callable[[Tensors], Tensors]:
    """The fitted transform, as a module that an exported model can carry."""
    fitted = json.loads((folder / _FITTED_NAME).read_text())
    return _Standardise(fitted["mean"], fitted["std"])


class _Standardise(nn.Module):
    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, raw: Tensors) -> Tensors:
        return {name: (values - self.mean) / self.std for name, values in raw.items()}
