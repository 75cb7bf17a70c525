"""The statistics of a study: medians, bootstrap intervals, scaling efficiency, verdicts.

Throughput is skewed (a run can be slowed, hardly sped up), so the median stands for a cell.
Intervals are percentile bootstrap intervals (Efron & Tibshirani, 1993, ch. 13): they never leave
the range of the data. BCa intervals need more repeats than a study has to estimate their
acceleration. Resampling is seeded: the same runs always give the same report.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from pipelines.compare.model import Interval, Verdict

__all__ = [
    "LEAST_REPEATS",
    "interval_of_median",
    "interval_of_ratio",
    "median",
    "range_coverage",
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
    return _bootstrap([_finite(values)], np.median)


def interval_of_ratio(above: Sequence[float], below: Sequence[float]) -> Interval | None:
    """Bootstrap 95 % interval of median(above) / median(below), two independent samples.

    None if a side has fewer than two finite values, or ``below`` one that is not positive.
    """
    above, below = _finite(above), _finite(below)
    if any(value <= 0 for value in below):
        return None

    def ratio(a: Any, b: Any, axis: int) -> Any:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    return _bootstrap([above, below], ratio)


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


def _bootstrap(samples: list[list[float]], statistic: Any) -> Interval | None:
    if any(len(sample) < 2 for sample in samples):
        return None  # nothing to resample: an interval would be invented
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        confidence_level=0.95,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(_SEED),
    )
    low, high = result.confidence_interval
    return float(low), float(high)
