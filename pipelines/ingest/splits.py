"""The split rule: a hash of ``example_id`` alone.

So an example never changes sides when rows are added, reordered, or read by another number of
workers.
"""

import hashlib
from collections.abc import Mapping

from pipelines.ingest.manifest import Split

__all__ = ["position", "split_of"]


def position(example_id: str) -> float:
    """Where an example falls in [0, 1): the first 53 bits of the SHA-256 of its id."""
    digest = hashlib.sha256(example_id.encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def split_of(at: float, shares: Mapping[Split, float]) -> Split:
    """The split that owns a position, the shares laid end to end in their order."""
    upper = 0.0
    for split, share in shares.items():
        upper += share
        if at < upper:
            return split
    return split  # rounding may leave the shares' sum just under one
