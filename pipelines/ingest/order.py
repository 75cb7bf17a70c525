"""The order of examples: a function of (seed, epoch), whatever the data's size.

A split that fits the shuffle buffer is permuted as a whole. A larger one is cut into blocks of
rows; the blocks are permuted, taken by the bufferful, and the rows of each bufferful permuted. So
neighbours in the data end up apart, while what is read at a time stays bounded.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["EpochOrder"]

Rows = npt.NDArray[np.int64]

_BLOCKS_PER_BUFFER = 256
_BUFFERS_KEPT = 4


class EpochOrder:
    """One epoch's order of ``rows`` rows, worked out a bufferful at a time."""

    def __init__(self, rows: int, *, seed: int, epoch: int, buffer_rows: int) -> None:
        """``buffer_rows``: how many rows are shuffled among each other."""
        self._seed = [seed, epoch]
        whole = rows <= buffer_rows
        self._block_rows = rows if whole else max(1, buffer_rows // _BLOCKS_PER_BUFFER)
        self._rows = rows
        blocks = -(-rows // self._block_rows)
        self._blocks = np.random.default_rng(self._seed).permutation(blocks)
        per_buffer = max(1, buffer_rows // self._block_rows)
        firsts = np.arange(0, blocks, per_buffer)
        sizes = np.minimum(self._block_rows, rows - self._blocks * self._block_rows)
        # Position at which each bufferful begins, and the end.
        self._starts = np.concatenate([[0], np.add.reduceat(sizes, firsts).cumsum()])
        self._per_buffer = per_buffer
        self._known: dict[int, Rows] = {}

    def rows_at(self, start: int, stop: int) -> Rows:
        """The row numbers at positions [start, stop) of the epoch."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = []
        for number in range(first, last):
            offset = int(self._starts[number])
            parts.append(self._buffer(number)[max(start - offset, 0) : stop - offset])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _buffer(self, number: int) -> Rows:
        if number not in self._known:
            while len(self._known) >= _BUFFERS_KEPT:
                self._known.pop(next(iter(self._known)))
            blocks = self._blocks[number * self._per_buffer : (number + 1) * self._per_buffer]
            rows = (blocks[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
            rows = rows[rows < self._rows]  # the last block may be short
            generator = np.random.default_rng([*self._seed, number])
            self._known[number] = generator.permutation(rows)
        return self._known[number]
