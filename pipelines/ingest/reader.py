"""The batch stream that both frameworks can share.

A global batch is a function of (seed, step) alone: the epochs' permutations are laid end to end,
and step *k* takes the examples from ``k * global_batch_size`` on. Every example appears once per
epoch, no batch is short, and worker *r* of *n* takes its slice of each global batch, so neither
the worker count nor a restart changes what a step trains on.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest.dataset import Columns, Dataset
from pipelines.ingest.manifest import Split
from pipelines.worker import Worker
from pipelines.workloads.base import Workload

__all__ = ["BatchStream", "SharedBatches", "sequential_batches"]

Batch = tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]
"""Features (float32) and labels (int64), model-ready."""


class SharedBatches:
    """What both frameworks consume under ``data.reader: shared``; every iteration starts anew.

    ``train``: this worker's part of each global batch, without end. ``eval``: the whole split
    once, for every worker.
    """

    def __init__(self, config: Config, workload: Workload, split: Split, worker: Worker) -> None:
        """Read and verify the split.

        Raises:
            InputError: naming the first shard that is missing or altered.
        """
        dataset = Dataset.open(config.dataset_dir)
        features, labels = workload.prepare(dataset.columns(split), dataset.manifest.statistics)
        self._columns: Columns = {"features": features, "labels": labels}
        self._config = config
        self._split = split
        self._worker = worker

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the first step on."""
        return ((batch["features"], batch["labels"]) for batch in self._stream())

    def _stream(self) -> Iterator[Columns]:
        training = self._config.training
        if self._split == "eval":
            return sequential_batches(self._columns, training.batch_size_per_worker)
        return BatchStream(
            self._columns,
            global_batch_size=self._config.global_batch_size(self._worker.workers),
            rank=self._worker.rank,
            workers=self._worker.workers,
            seed=training.seed,
        ).batches()


class BatchStream:
    """An endless, shuffled stream of one worker's part of each global batch."""

    def __init__(
        self, columns: Columns, *, global_batch_size: int, rank: int, workers: int, seed: int
    ) -> None:
        """Stream batches of ``global_batch_size / workers`` examples of a whole split.

        Raises:
            InputError: if the workers cannot share a global batch equally.
        """
        if global_batch_size % workers:
            raise InputError(
                f"training: a global batch of {global_batch_size} examples cannot be shared "
                f"equally by {workers} workers"
            )
        self._columns = columns
        self._rows = len(next(iter(columns.values())))
        self._global_batch_size = global_batch_size
        self._batch_size = global_batch_size // workers
        self._rank = rank
        self._seed = seed
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def batch(self, step: int) -> Columns:
        """This worker's examples of the global batch of a step, counted from 0."""
        first = step * self._global_batch_size + self._rank * self._batch_size
        rows = self._rows_at(first, first + self._batch_size)
        return {name: values[rows] for name, values in self._columns.items()}

    def batches(self, start_step: int = 0) -> Iterator[Columns]:
        """The batches from a step on, without end."""
        step = start_step
        while True:
            yield self.batch(step)
            step += 1

    def _rows_at(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Row numbers at positions [start, stop) of the concatenated epochs."""
        first_epoch, last_epoch = start // self._rows, (stop - 1) // self._rows
        orders = [self._order(epoch) for epoch in range(first_epoch, last_epoch + 1)]
        offset = first_epoch * self._rows
        return np.concatenate(orders)[start - offset : stop - offset]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {
                known: self._orders[known] for known in self._orders if known >= epoch - 1
            }
            self._orders[epoch] = np.random.default_rng([self._seed, epoch]).permutation(self._rows)
        return self._orders[epoch]


def sequential_batches(columns: Columns, batch_size: int) -> Iterator[Columns]:
    """Every example once, in stored order; the last batch may be short."""
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, batch_size):
        yield {name: values[start : start + batch_size] for name, values in columns.items()}
