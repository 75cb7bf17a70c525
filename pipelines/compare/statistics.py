"""The statistics of a study: medians, bootstrap intervals, scaling efficiency, verdicts.

Throughput is skewed (a run can be slowed, hardly sped up), so the median stands for a cell.
Intervals are percentile bootstrap intervals (Efron & Tibshirani, 1993, ch. 13): they never leave
the range of the data. BCa intervals need more repeats than a study has to estimate their
acceleration. Resampling is seeded: the same runs always give the same report.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipelines.compare.model import Interval, Verdict

__all__ = [
    "LEAST_REPEATS",
    "interval_of_median",
    "interval_of_ratio",
    "median",
    "percentile_interval",
    "range_coverage",
    "resampled_medians",
    "verdict",
]

LEAST_REPEATS = 3
"""Repeats per side below which a difference is never called."""

_SIGNIFICANT = 0.05
_RESAMPLES = 9_999
_SEED = 20_240_229


def median(values: Sequence[float]) -> float | None:
    """Median of the finite values, or None if there is none."""
    finite = _finite(values)
    return float(np.median(finite)) if finite else None


def interval_of_median(values: Sequence[float]) -> Interval | None:
    """Bootstrap 95 % interval of the median, or None below two finite values."""
    values = _finite(values)
    if len(values) < 2:
        return None  # nothing to resample: an interval would be invented
    return percentile_interval(resampled_medians(values))


def interval_of_ratio(above: Sequence[float], below: Sequence[float]) -> Interval | None:
    """Bootstrap 95 % interval of median(above) / median(below), two independent samples.

    None if a side has fewer than two finite values, or ``below`` one that is not positive.
    """
    above, below = _finite(above), _finite(below)
    if min(len(above), len(below)) < 2 or min(below) <= 0:
        return None
    return percentile_interval(resampled_medians(above) / resampled_medians(below, 1))


def verdict(torch: Sequence[float], tf: Sequence[float]) -> Verdict:
    """Which framework is faster, if the repeats can tell.

    Two things must agree: the bootstrap interval of torch / tf leaves out 1, and Welch's t-test
    of the logarithms (Welch, 1947) rejects equality at 5 %. The interval alone would not do: with
    three repeats a side, two equal frameworks separate wholly in 10 % of studies.
    """
    torch, tf = _finite(torch), _finite(tf)
    ends = interval_of_ratio(torch, tf)
    if ends is None or min(len(torch), len(tf)) < LEAST_REPEATS:
        return "no significant difference"
    if ends[0] <= 1 <= ends[1] or _welch(np.log(torch), np.log(tf)) >= _SIGNIFICANT:
        return "no significant difference"
    return "torch faster" if ends[0] > 1 else "tf faster"


def range_coverage(repeats: int) -> float:
    """Chance that the range of the repeats holds the true median: 1 - 2^(1 - n).

    No interval from resampling is wider than that range, so with few repeats a nominal 95 %
    interval covers less (David & Nagaraja, Order Statistics, 2003, sec. 7.1).
    """
    return 1 - 2.0 ** (1 - repeats)


def _finite(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _welch(one: Any, other: Any) -> float:
    """Two-sided p-value; repeats without any spread differ surely or not at all."""
    if np.ptp(one) == 0 and np.ptp(other) == 0:
        return float(one[0] == other[0])
    return float(stats.ttest_ind(one, other, equal_var=False).pvalue)


def percentile_interval(resampled: Any) -> Interval:
    """Between which 95 % of resampled values lie."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def resampled_medians(values: Sequence[float] | NDArray[np.float64], stream: int = 0) -> Any:
    """Medians of resamples with replacement; those of another ``stream`` are independent of them.

    The k-th smallest of n draws from n sorted values has the rank of the k-th smallest of n
    uniform numbers, whose distribution is Beta(k, n + 1 - k) (David & Nagaraja, 2003, sec. 2.3).
    To draw that takes a hundredth of the time of n draws and a search for their median.
    """
    ordered = np.sort(values)
    below, above = _middle_ranks(len(ordered), stream)
    return (ordered[below] + ordered[above]) / 2


@cache
def _middle_ranks(size: int, stream: int) -> tuple[Any, Any]:
    """Of both middle values of each resample, which are one if their number is odd."""
    rng = np.random.default_rng([_SEED, stream])
    place = (size + 1) // 2
    below = rng.beta(place, size + 1 - place, _RESAMPLES)
    above = below
    if size % 2 == 0:  # the smallest of the draws that lie above
        above = below + (1 - below) * rng.beta(1, size - place, _RESAMPLES)
    return (below * size).astype(int), (above * size).astype(int)
