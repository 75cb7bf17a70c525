"""The split rule: a hash of ``example_id`` alone.

So an example never changes sides when rows are added, reordered, or read by another number of
workers. The hash is XXH3 (64 bits, seed 0) of the id in UTF-8: a published algorithm, so that any
tool can tell a split, and several times as fast as a cryptographic one, which nobody needs here.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from pipelines.ingest.manifest import Split

__all__ = ["hash_ids", "positions", "split_rows"]


def hash_ids(ids: pa.Array) -> npt.NDArray[np.uint64]:
    """XXH3-64 of each id."""
    texts = ids.cast(pa.binary()).to_pylist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts), np.uint64, len(texts))


def positions(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Where examples fall in [0, 1): the first 53 bits of their hashes."""
    return np.right_shift(hashes, np.uint64(11)) / float(1 << 53)


def split_rows(
    hashes: npt.NDArray[np.uint64], shares: Mapping[Split, float]
) -> dict[Split, npt.NDArray[np.int64]]:
    """Each split's row numbers, the shares laid end to end in their order.

    Rows come in order of their hash: shuffled at rest, in an order that the source's cannot
    influence.
    """
    order = np.argsort(hashes, kind="stable")
    bounds = np.cumsum(list(shares.values()))[:-1]
    parts = np.split(order, np.searchsorted(positions(hashes[order]), bounds))
    return dict(zip(shares, parts, strict=True))
