"""Batches of (features, target) as a ``DataLoader`` over an ``IterableDataset``."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as arrow
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pipelines.config import Config
from pipelines.ingest.manifest import Split
from pipelines.ingest.reader import SharedBatches
from pipelines.worker import Worker
from pipelines.workloads import TARGET, TensorSpec, Workload

__all__ = ["open_dataset"]

_Batch = tuple[dict[str, Tensor], Tensor]


def open_dataset(
    config: Config,
    workload: Workload,
    split: Split,
    worker: Worker,
    transformed: Path | None = None,
    start_step: int = 0,
) -> DataLoader[_Batch]:
    """This worker's batches: features by name, as the workload states them, and the target.

    ``train`` never ends, and its batches all have ``batch_size_per_worker`` examples; it begins
    where a run is after ``start_step`` steps. ``eval`` is the whole split once, for every worker.
    With ``transformed`` the examples come from the folder that the framework's own transform wrote,
    else from the reader that both frameworks share.
    """
    batches: IterableDataset[_Batch]
    if transformed is None:
        batches = _SharedStream(config, workload, split, worker, start_step)
    else:
        batches = _TransformedParquet(config, workload, split, worker, transformed, start_step)
    return DataLoader(batches, batch_size=None)


class _SharedStream(IterableDataset[_Batch]):
    def __init__(
        self, config: Config, workload: Workload, split: Split, worker: Worker, start_step: int
    ) -> None:
        self._batches = SharedBatches(config, workload, split, worker, start_step)

    def __iter__(self) -> Iterator[_Batch]:
        for features, target in self._batches:
            tensors = {name: torch.from_numpy(values) for name, values in features.items()}
            yield tensors, torch.from_numpy(target)


class _TransformedParquet(IterableDataset[_Batch]):
    def __init__(
        self,
        config: Config,
        workload: Workload,
        split: Split,
        worker: Worker,
        folder: Path,
        start_step: int,
    ) -> None:
        self._start_step = start_step
        self._size = config.training.batch_size_per_worker
        self._shuffled = split == "train"
        self._order = torch.Generator().manual_seed(config.training.seed)
        files = sorted((folder / f"split={split}").glob("*.parquet"))
        table = arrow.dataset(files).to_table().combine_chunks()
        mine = slice(worker.rank, None, worker.workers) if self._shuffled else slice(None)
        self._features = {
            name: _as_tensor(table, name, spec)[mine] for name, spec in workload.features.items()
        }
        self._target = _as_tensor(table, TARGET, workload.target)[mine]

    def __iter__(self) -> Iterator[_Batch]:
        if not self._shuffled:
            for rows in torch.arange(len(self._target)).split(self._size):
                yield self._at(rows)
            return
        for batch in islice(self._shuffled_rows(), self._start_step, None):
            yield self._at(batch)

    def _shuffled_rows(self) -> Iterator[Tensor]:
        rows = torch.empty(0, dtype=torch.int64)
        while True:
            while len(rows) < self._size:  # a batch may span epochs, so none is short
                epoch = torch.randperm(len(self._target), generator=self._order)
                rows = torch.cat([rows, epoch])
            batch, rows = rows[: self._size], rows[self._size :]
            yield batch

    def _at(self, rows: Tensor) -> _Batch:
        features = {name: values[rows] for name, values in self._features.items()}
        return features, self._target[rows]


def _as_tensor(table: pa.Table, name: str, spec: TensorSpec) -> Tensor:
    column = table[name].combine_chunks()
    values = column.flatten() if spec.shape else column
    return torch.tensor(values.to_numpy(zero_copy_only=False)).reshape(-1, *spec.shape)
