"""What a probed run wrote down of itself, and how far two such records lie apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["QUANTITIES", "TRACE_NAME", "Quantity", "Series", "Trace", "relative_differences"]

TRACE_NAME = "trace.npz"
"""What rank 0 of a probed run writes into its folder."""

Quantity = Literal["loss", "gradient_norm", "weight_norm"]
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""What is compared at every step, in the order in which a step computes it: the loss and the
gradient's norm come before the update, the norm of all weights and running statistics after."""

Series = npt.NDArray[np.float64]
"""One value per step."""

_WEIGHTS, _METRIC = "weights/", "metric/"


@dataclass(frozen=True)
class Trace:
    """One probed run."""

    series: Mapping[Quantity, Series]
    weights: Mapping[str, npt.NDArray[np.floating]]
    """Final parameters and running statistics, by the workload's names."""
    metrics: Mapping[str, float]
    """Of evaluation after the last step."""

    @classmethod
    def load(cls, path: Path) -> "Trace":
        """Read what a run wrote."""
        with np.load(path) as stored:
            return cls(
                series={name: stored[name].astype(np.float64) for name in QUANTITIES},
                weights={
                    name.removeprefix(_WEIGHTS): stored[name]
                    for name in stored.files
                    if name.startswith(_WEIGHTS)
                },
                metrics={
                    name.removeprefix(_METRIC): float(stored[name])
                    for name in stored.files
                    if name.startswith(_METRIC)
                },
            )

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.series["loss"])

    def weights_norm(self) -> float:
        """L2 norm of the final weights."""
        return math.sqrt(sum(_squared(value) for value in self.weights.values()))

    def weights_difference(self, other: "Trace") -> float:
        """Relative L2 difference of all final weights; infinite if the two are not one model."""
        mine, theirs = self.weights, other.weights
        if {name: value.shape for name, value in mine.items()} != {
            name: value.shape for name, value in theirs.items()
        }:
            return math.inf
        apart = math.sqrt(
            sum(_squared(mine[name].astype(np.float64) - theirs[name]) for name in mine)
        )
        norm = max(self.weights_norm(), other.weights_norm())
        return _finite(apart / norm if norm else 0.0)

    def metric_difference(self, other: "Trace", name: str) -> float:
        """Absolute difference of one of evaluation's metrics."""
        return _finite(abs(self.metrics[name] - other.metrics[name]))


def relative_differences(left: Series, right: Series) -> Series:
    """Step by step, relative to the larger of both; a value that is not finite agrees with none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(left - right) / np.maximum(np.abs(left), np.abs(right))
    apart[(left == right) & np.isfinite(left)] = 0
    apart[~np.isfinite(apart)] = np.inf
    return apart


def _squared(values: npt.NDArray[np.floating]) -> float:
    return float(np.square(values.astype(np.float64)).sum())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
