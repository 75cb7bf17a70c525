"""What an all-reduce costs by the alpha-beta model, and the two figures that the model needs.

A message of S bytes takes alpha + beta S seconds (Hockney, 1994): a latency, and a cost per byte.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

__all__ = ["ALGORITHMS", "Algorithm", "Link", "Sample", "all_reduce_seconds", "fit_link"]

Algorithm = Literal["ring", "tree"]
ALGORITHMS: tuple[Algorithm, ...] = ("ring", "tree")


class Sample(NamedTuple):
    """One size of a measured all-reduce."""

    workers: int
    message_bytes: float
    seconds: float


@dataclass(frozen=True)
class Link:
    """What a message from one worker to another costs."""

    latency_seconds: float
    """alpha."""
    seconds_per_byte: float
    """beta."""


def all_reduce_seconds(
    algorithm: Algorithm, workers: int, message_bytes: float, link: Link
) -> float:
    """Seconds of one all-reduce over ``workers``; one worker has nobody to wait for.

    ``ring``: a reduce-scatter and an all-gather of n - 1 messages each, of S / n bytes, which no
    algorithm undercuts in bytes (Patarasuk & Yuan, 2009): 2 (n - 1) alpha + 2 (n - 1) / n S beta.

    ``tree``: a reduction and a broadcast along trees of depth log2 n (Thakur, Rabenseifner &
    Gropp, 2005), the message cut up so that all levels work at once on two trees in which every
    worker has both its directions busy (Sanders, Speck & Träff, 2009; what NCCL calls its tree):
    2 ceil(log2 n) alpha + 2 S beta.
    """
    messages, volumes = _counts(algorithm, workers)
    return messages * link.latency_seconds + volumes * message_bytes * link.seconds_per_byte


def fit_link(samples: Sequence[Sample]) -> tuple[Link, NDArray[np.float64]]:
    """The link that explains measured ring all-reduces best, and measured / fitted of each.

    Least squares of the relative residuals, so that small messages count, with neither figure
    below 0.
    """
    design = np.array([_counts("ring", sample.workers) for sample in samples], dtype=float)
    design[:, 1] *= [sample.message_bytes for sample in samples]
    seconds = np.array([sample.seconds for sample in samples])
    # Unit columns: bytes and messages lie ten orders of magnitude apart.
    relative = design / seconds[:, None]
    units = np.linalg.norm(relative, axis=0)
    solution, _ = nnls(relative / units, np.ones(len(samples)))
    latency_seconds, seconds_per_byte = solution / units
    link = Link(float(latency_seconds), float(seconds_per_byte))
    return link, seconds / (design @ [link.latency_seconds, link.seconds_per_byte])


def _counts(algorithm: Algorithm, workers: int) -> tuple[float, float]:
    """How many messages follow one another, and how often the vector crosses a link in all."""
    if workers == 1:
        return 0.0, 0.0
    if algorithm == "ring":
        return 2.0 * (workers - 1), 2.0 * (workers - 1) / workers
    return 2.0 * math.ceil(math.log2(workers)), 2.0
