"""The batch stream that both frameworks can share.

A global batch is a function of (seed, step) alone: the epochs' orders are laid end to end, and
step *k* takes the examples from ``k * global_batch_size`` on. Every example appears once per
epoch, no batch is short, and worker *r* of *n* takes its slice of each global batch, so neither
the worker count nor a restart changes what a step trains on.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.columns import Columns
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Split
from pipelines.ingest.order import EpochOrder
from pipelines.worker import Worker
from pipelines.workloads.base import Batch, Workload

__all__ = ["BatchStream", "SharedBatches", "sequential_batches"]

# One gather for the batches of several steps: small batches of many columns would otherwise
# spend most of their time in calls.
_GATHERED_ROWS = 65_536
_GATHERED_BYTES = 1 << 23


class SharedBatches:
    """What both frameworks consume under ``data.reader: shared``; every iteration starts anew.

    ``train``: this worker's part of each global batch, without end, in one batch after the other
    for each of its replicas. ``eval``: the whole split once, for every worker.
    """

    def __init__(
        self,
        config: Config,
        workload: Workload,
        split: Split,
        worker: Worker,
        start_step: int = 0,
    ) -> None:
        """Verify the split and map its columns; ``train`` begins after ``start_step`` steps.

        Raises:
            InputError: naming the first shard that is missing or altered.
        """
        dataset = Dataset.open(config.dataset_dir)
        columns = mapped_columns(dataset, split)
        self._columns = {name: columns[name] for name in workload.columns}
        self._statistics = dataset.manifest.statistics["train"]
        self._workload = workload
        self._config = config
        self._split = split
        self._worker = worker
        self._start_step = start_step

    def __iter__(self) -> Iterator[Batch]:
        """Batches from the first step that is asked for."""
        prepare, statistics = self._workload.prepare, self._statistics
        return (prepare(batch, statistics) for batch in self._stream())

    def rows(self, step: int) -> list[int]:
        """Which rows of the split are the global batch of a step, counted from 0."""
        rows: list[int] = self._train_stream().rows(step).tolist()
        return rows

    def _stream(self) -> Iterator[Columns]:
        size = self._config.training.batch_size_per_worker
        if self._split == "eval":
            return sequential_batches(self._columns, size)
        batches = self._train_stream().batches(self._start_step)
        return (part for batch in batches for part in sequential_batches(batch, size))

    def _train_stream(self) -> "BatchStream":
        return BatchStream(
            self._columns,
            global_batch_size=self._config.global_batch_size(self._worker.all_replicas),
            rank=self._worker.rank,
            workers=self._worker.workers,
            seed=self._config.training.seed,
            shuffle_buffer=self._config.data.shuffle_buffer,
        )


class BatchStream:
    """An endless, shuffled stream of one worker's part of each global batch."""

    def __init__(
        self,
        columns: Columns,
        *,
        global_batch_size: int,
        rank: int,
        workers: int,
        seed: int,
        shuffle_buffer: int,
    ) -> None:
        """Stream batches of ``global_batch_size / workers`` examples of a whole split.

        ``shuffle_buffer``: how many examples are shuffled among each other.

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
        self._shuffle_buffer = shuffle_buffer
        self._orders: dict[int, EpochOrder] = {}

    def batch(self, step: int) -> Columns:
        """This worker's examples of the global batch of a step, counted from 0."""
        return next(self._gathered(step, 1))

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Row numbers of all workers' examples at a step, counted from 0."""
        first = step * self._global_batch_size
        return self._rows_at(first, first + self._global_batch_size)

    def batches(self, start_step: int = 0) -> Iterator[Columns]:
        """The batches from a step on, without end."""
        row_bytes = sum(values[:1].nbytes for values in self._columns.values())
        rows = min(_GATHERED_ROWS, _GATHERED_BYTES // max(row_bytes, 1), self._rows)
        steps = max(1, rows // self._batch_size)
        step = start_step
        while True:
            yield from self._gathered(step, steps)
            step += steps

    def _gathered(self, step: int, steps: int) -> Iterator[Columns]:
        size = self._batch_size
        first = step * self._global_batch_size
        positions = self._rows_at(first, first + steps * self._global_batch_size)
        mine = positions.reshape(steps, -1)[:, self._rank * size : (self._rank + 1) * size].ravel()
        # Row numbers are in range; "clip" spares NumPy checking each and a buffer.
        gathered = {
            name: values.take(mine, axis=0, mode="clip") for name, values in self._columns.items()
        }
        for start in range(0, steps * size, size):
            yield {name: values[start : start + size] for name, values in gathered.items()}

    def _rows_at(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Row numbers at positions [start, stop) of the concatenated epochs."""
        parts = []
        while start < stop:
            epoch, offset = divmod(start, self._rows)
            taken = min(stop - start, self._rows - offset)
            parts.append(self._order(epoch).rows_at(offset, offset + taken))
            start += taken
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _order(self, epoch: int) -> EpochOrder:
        if epoch not in self._orders:
            self._orders = {
                known: self._orders[known] for known in self._orders if known >= epoch - 1
            }
            self._orders[epoch] = EpochOrder(
                self._rows, seed=self._seed, epoch=epoch, buffer_rows=self._shuffle_buffer
            )
        return self._orders[epoch]


def sequential_batches(columns: Columns, batch_size: int) -> Iterator[Columns]:
    """Every example once, in stored order; the last batch may be short."""
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, batch_size):
        yield {name: values[start : start + batch_size] for name, values in columns.items()}
