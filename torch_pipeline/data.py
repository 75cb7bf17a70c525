"""Batches of (features, labels) as a ``DataLoader`` over an ``IterableDataset``."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as arrow
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pipelines.config import Config
from pipelines.ingest.manifest import Split
from pipelines.ingest.reader import SharedBatches
from pipelines.worker import Worker
from pipelines.workloads import Vision

__all__ = ["open_dataset"]


def open_dataset(
    config: Config,
    workload: Vision,
    split: Split,
    worker: Worker,
    transformed: Path | None = None,
) -> DataLoader[tuple[Tensor, Tensor]]:
    """This worker's batches: images (batch, channels, height, width) and labels (batch,).

    ``train`` never ends, and its batches all have ``batch_size_per_worker`` examples; ``eval`` is
    the whole split once, for every worker. With ``transformed`` the examples come from the folder
    that the framework's own transform wrote, else from the reader that both frameworks share.
    """
    batches: IterableDataset[tuple[Tensor, Tensor]]
    if transformed is None:
        batches = _SharedStream(config, workload, split, worker)
    else:
        batches = _TransformedParquet(config, workload, split, worker, transformed)
    return DataLoader(batches, batch_size=None)


class _SharedStream(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, config: Config, workload: Vision, split: Split, worker: Worker) -> None:
        self._batches = SharedBatches(config, workload, split, worker)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for features, labels in self._batches:
            yield _channels_first(torch.from_numpy(features)), torch.from_numpy(labels)


class _TransformedParquet(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(
        self, config: Config, workload: Vision, split: Split, worker: Worker, folder: Path
    ) -> None:
        self._size = config.training.batch_size_per_worker
        self._shuffled = split == "train"
        self._order = torch.Generator().manual_seed(config.training.seed)
        files = sorted((folder / f"split={split}").glob("*.parquet"))
        table = arrow.dataset(files).to_table().combine_chunks()
        images = torch.tensor(table[workload.feature].combine_chunks().flatten().to_numpy())
        labels = torch.tensor(table[workload.label].to_numpy())
        mine = slice(worker.rank, None, worker.workers) if self._shuffled else slice(None)
        self._images = _channels_first(images.reshape(-1, *workload.image_shape))[mine]
        self._labels = labels[mine]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self._shuffled:
            yield from zip(
                self._images.split(self._size), self._labels.split(self._size), strict=True
            )
            return
        rows = torch.empty(0, dtype=torch.int64)
        while True:
            while len(rows) < self._size:  # a batch may span epochs, so none is short
                epoch = torch.randperm(len(self._labels), generator=self._order)
                rows = torch.cat([rows, epoch])
            batch, rows = rows[: self._size], rows[self._size :]
            yield self._images[batch], self._labels[batch]


def _channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)
