"""A probe: a training run that writes down every step, changed only in how it rounds.

Run against the unchanged run, either change tells how far rounding alone carries a framework from
itself, which no other implementation can be asked to undercut.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipelines.ingest.columns import Columns
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workloads.base import Batch, Weights, Workload

__all__ = ["Precision", "Probe", "probed"]

Precision = Literal["float32", "bfloat16", "float16", "float64"]

_HALF_SPACING: dict[Precision, float] = {"bfloat16": 2**-8, "float16": 2**-11}
"""Rounding to these moves a value by up to this share of it; NumPy lacks bfloat16."""

AnyWorkload = TypeVar("AnyWorkload", bound=Workload)


class Probe(BaseModel):
    """What is changed in a probed run; by default nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perturbation: int | None = None
    """Seed: every initial weight is moved by one rounding, up or down at random."""
    permutation: int | None = None
    """Seed: the examples of each worker's batch are permuted, so sums add up in another order."""
    precision: Precision = "float32"
    """The run's precision, which says how large one rounding is."""

    @classmethod
    def load(cls, path: Path) -> "Probe":
        """Read a probe that ``dump`` wrote."""
        return cls.model_validate_json(path.read_text())

    def dump(self, path: Path) -> Path:
        """Write the probe for a worker process to read."""
        path.write_text(self.model_dump_json(indent=2) + "\n")
        return path


def probed(workload: AnyWorkload, probe: Probe) -> AnyWorkload:
    """The same workload with the probe's changes; evaluation sees another order at most."""

    def initial_weights(seed: int) -> Weights:
        return {
            name: _moved(value, np.random.default_rng([moved, *name.encode()]), probe.precision)
            for name, value in workload.initial_weights(seed).items()
        }

    def prepare(columns: Columns, statistics: Mapping[str, ColumnStatistics]) -> Batch:
        features, target = workload.prepare(columns, statistics)
        order = np.random.default_rng(permuted).permutation(len(target))
        return {name: values[order] for name, values in features.items()}, target[order]

    changed = copy.copy(workload)
    moved, permuted = probe.perturbation, probe.permutation
    # Of whatever family: methods are replaced on this one object, frozen as it may be.
    if moved is not None:
        object.__setattr__(changed, "initial_weights", initial_weights)
    if permuted is not None:
        object.__setattr__(changed, "prepare", prepare)
    return changed


def _moved(
    values: npt.NDArray[np.float32], generator: np.random.Generator, precision: Precision
) -> npt.NDArray[Any]:
    signs = generator.choice([-1.0, 1.0], values.shape)
    if precision in _HALF_SPACING:
        return (values * (1 + signs * _HALF_SPACING[precision])).astype(values.dtype)
    exact = values.astype(precision)
    moved: npt.NDArray[Any] = np.nextafter(exact, (signs * np.inf).astype(precision))
    return moved
