"""An all-reduce's time by a ring's formula, fitted to what was measured.

In a ring of n workers each sends 2 (n - 1) messages, of a vector's n-th part each, so that
T(n, S) = 2 (n - 1) latency + 2 (n - 1) / n * S * seconds per byte (Patarasuk & Yuan, 2009).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

__all__ = ["Ring", "fit_ring"]


@dataclass(frozen=True)
class Ring:
    """What the links between neighbours are like."""

    latency_seconds: float
    """Of a message, however short."""
    seconds_per_byte: float
    """The inverse of the bandwidth."""


def fit_ring(workers: int, seconds: Mapping[int, float]) -> Ring:
    """The ring of several workers that explains timed all-reduces best: bytes -> seconds.

    Neither figure is negative. Squares of relative errors are summed, so that small messages count
    as much as large ones.
    """
    sizes, measured = np.array([*seconds]), np.array([*seconds.values()])
    messages = 2 * (workers - 1)
    # In units of the largest size, or the columns would differ by ten orders of magnitude.
    largest = sizes.max()
    columns = np.stack([np.full(len(sizes), messages), messages / workers * sizes / largest], 1)
    (latency, of_largest), _ = nnls(columns / measured[:, np.newaxis], np.ones(len(sizes)))
    return Ring(float(latency), float(of_largest / largest))
