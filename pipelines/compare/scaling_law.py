"""The Universal Scalability Law (Gunther, 2007, ch. 4), fitted to measured throughputs.

n / X(n) = 1 / lambda + sigma / lambda (n - 1) + kappa / lambda n (n - 1)

is linear in (1 - sigma) / lambda, sigma / lambda and kappa / lambda, none of which can be below 0,
so that non-negative least squares finds the best fit there is, with no start to choose. It is
fitted to the medians of each worker count, on relative residuals. Intervals come from resampling
the repeats within each worker count.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from pipelines.compare.law_model import Law, LawPoint
from pipelines.compare.part import Interval
from pipelines.compare.statistics import percentile_interval, resampled_medians

__all__ = ["LEAST_WORKER_COUNTS", "fit_law"]

LEAST_WORKER_COUNTS = 4
"""Below it three parameters would fit any points."""

_RESAMPLES = 1_999
"""Fewer than elsewhere, since each is a fit."""
_ENDS = (2.5, 97.5)
_CURVE_POINTS = 40

Floats = NDArray[np.float64]


def fit_law(samples: Mapping[int, Sequence[float]]) -> Law | None:
    """Fit the law to the repeats of each worker count, examples per second.

    Values that are not finite and positive are left out; None if fewer than four worker counts
    have any, or if throughput falls so fast that no law has it.
    """
    repeats = {workers: _usable(values) for workers, values in sorted(samples.items())}
    repeats = {workers: values for workers, values in repeats.items() if values.size}
    if len(repeats) < LEAST_WORKER_COUNTS:
        return None
    workers = np.array([*repeats], dtype=np.float64)
    medians = np.array([np.median(values) for values in repeats.values()])
    solution = _solve(workers, medians)
    if solution[0] == 0:
        return None
    resampled = _resample(workers, [*repeats.values()])
    peak, peak_ends = _peak(solution), None
    if resampled is not None:
        low, high = np.percentile([_peak(each) for each in resampled], _ENDS, method="nearest")
        peak_ends = (_or_none(low), _or_none(high))
    base, contention, coherency = _parameters(solution[None])[:, 0]
    ends = (
        [None] * 3
        if resampled is None
        else [percentile_interval(v) for v in _parameters(resampled)]
    )
    return Law(
        base_throughput=base,
        base_throughput_interval95=ends[0],
        contention=contention,
        contention_interval95=ends[1],
        coherency=coherency,
        coherency_interval95=ends[2],
        peak_workers=_or_none(peak),
        peak_workers_interval95=peak_ends,
        largest_residual=float(np.abs(_throughput(workers, solution) / medians - 1).max()),
        curve=_curve(workers, solution, resampled),
    )


def _usable(values: Sequence[float]) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    return found[np.isfinite(found) & (found > 0)]


def _design(workers: Floats) -> Floats:
    return np.column_stack([np.ones_like(workers), workers - 1, workers * (workers - 1)])


def _solve(workers: Floats, throughputs: Floats) -> Floats:
    """1 / lambda, sigma / lambda and kappa / lambda."""
    # Per worker and in units of each measured value: the residuals are relative ones.
    scale = throughputs / workers
    (parallel, serial, pairs), _ = nnls(
        np.column_stack([np.ones_like(workers), workers, workers * (workers - 1)]) * scale[:, None],
        np.ones_like(workers),
    )
    return np.array([parallel + serial, serial, pairs])


def _resample(workers: Floats, repeats: Sequence[Floats]) -> Floats | None:
    """Solutions for resampled repeats, a row each; None if there is nothing to resample."""
    if any(values.size < 2 for values in repeats):
        return None
    medians = np.column_stack(
        [resampled_medians(each, stream)[:_RESAMPLES] for stream, each in enumerate(repeats)]
    )
    solutions = np.array([_solve(workers, row) for row in medians])
    return solutions[solutions[:, 0] > 0]


def _parameters(solutions: Floats) -> Floats:
    """lambda, sigma and kappa, a row each."""
    first, second, third = solutions.T
    return np.array([1 / first, second / first, third / first])


def _peak(solution: Floats) -> float:
    """The worker count beyond which throughput falls; infinite if it never does."""
    first, second, third = solution
    if third == 0:
        return math.inf
    return max(1.0, math.sqrt((first - second) / third))


def _throughput(workers: Floats, solutions: Floats) -> Floats:
    """By worker count, for one solution or for a row each."""
    found: Floats = workers / (solutions @ _design(workers).T)
    return found


def _curve(workers: Floats, solution: Floats, resampled: Floats | None) -> list[LawPoint]:
    """From one worker to twice the most that were measured."""
    counts = np.unique(np.geomspace(1, 2 * workers.max(), _CURVE_POINTS).round())
    ends: list[Interval | None] = [None] * counts.size
    if resampled is not None:
        ends = [percentile_interval(values) for values in _throughput(counts, resampled).T]
    return [
        LawPoint(workers=int(count), throughput=float(value), interval95=interval)
        for count, value, interval in zip(counts, _throughput(counts, solution), ends, strict=True)
    ]


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
