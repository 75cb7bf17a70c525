"""How long a step takes on any number of workers, calibrated from measured ones.

step(n) = lone step + max(0, all-reduce(n) - hidden) + extra

``hidden`` is how much of the all-reduce passes while gradients are still being computed: by how
much the measured cells wait less than the all-reduce takes. It is kept as a share of the lone step,
since it ends with the computation that hides it. ``extra`` is how much more they wait, where they
do. A cell's wait is its step less the lone step, both without their waits for a batch.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.optimize import nnls

from pipelines.collectives import (
    ALGORITHMS,
    Algorithm,
    Link,
    all_reduce_seconds,
    fit_link,
)
from pipelines.predict.measured import Measured, Step
from pipelines.predict.network import Network

__all__ = ["LoneStep", "StepModel", "calibrate"]


@dataclass(frozen=True)
class LoneStep:
    """A worker's step without communication: a fixed part, and one that grows with its batch."""

    fixed_seconds: float
    seconds_per_example: float
    measured: dict[float, float]
    """Examples per worker -> seconds."""

    @classmethod
    def fit(cls, measured: dict[float, float]) -> "LoneStep":
        """A line through the measured batch sizes; through one, all of it grows with the batch."""
        if len(measured) == 1:
            ((batch_size, only),) = measured.items()
            return cls(0.0, only / batch_size, measured)
        sizes, seconds = np.array([*measured]), np.array([*measured.values()])
        design = np.column_stack([np.ones_like(sizes), sizes]) / seconds[:, None]
        (fixed_seconds, seconds_per_example), _ = nnls(design, np.ones_like(sizes))
        return cls(float(fixed_seconds), float(seconds_per_example), measured)

    def seconds(self, batch_size: float) -> float:
        """Of a batch size: as measured, or by the line."""
        by_the_line = self.fixed_seconds + self.seconds_per_example * batch_size
        return self.measured.get(batch_size, by_the_line)


@dataclass(frozen=True)
class StepModel:
    """What one draw of the measurements says of any worker count."""

    lone_step: LoneStep
    link: Link
    gradient_bytes: int
    misfit: float
    """All-reduce of the gradient, measured / fitted."""
    hidden_share: float
    """Of the lone step."""
    extra_seconds: float

    def all_reduce_seconds(self, workers: int, network: Network | None) -> dict[Algorithm, float]:
        """Of the gradient, by each algorithm; ``network`` None: over the one that was measured."""
        link = network.carry(self.link) if network else self.link
        return {
            algorithm: self.misfit
            * all_reduce_seconds(algorithm, workers, self.gradient_bytes, link)
            for algorithm in ALGORITHMS
        }

    def exposed_seconds(self, workers: int, batch_size: float, network: Network | None) -> float:
        """What a step waits for communication, by the faster algorithm."""
        if workers == 1:
            return 0.0
        hidden = self.hidden_share * self.lone_step.seconds(batch_size)
        fastest = min(self.all_reduce_seconds(workers, network).values())
        return max(0.0, fastest - hidden) + self.extra_seconds

    def step_seconds(self, workers: int, batch_size: float, network: Network | None) -> float:
        """The whole step."""
        exposed = self.exposed_seconds(workers, batch_size, network)
        return self.lone_step.seconds(batch_size) + exposed


def calibrate(measured: Measured, misfit: float = 1.0) -> StepModel:
    """The model that the measured cells of two or more workers agree on, by their medians.

    Where all of an all-reduce was hidden, no more than that counts as hidden.
    """
    link, _ = fit_link(measured.samples)
    hidden_shares, extras = [], []
    for place in measured.joint:
        lone = measured.lone[place]
        exposed = max(0.0, _computing(measured.cells[place]) - _computing(lone))
        fitted = all_reduce_seconds("ring", place.workers, measured.gradient_bytes, link)
        surplus = misfit * fitted - exposed
        hidden_shares.append(max(0.0, surplus) / _middle(lone))
        extras.append(max(0.0, -surplus))
    return StepModel(
        lone_step=LoneStep.fit(_lone_steps(measured)),
        link=link,
        gradient_bytes=measured.gradient_bytes,
        misfit=misfit,
        hidden_share=median(hidden_shares),
        extra_seconds=median(extras),
    )


def _lone_steps(measured: Measured) -> dict[float, float]:
    """By examples per worker; of the most workers that had so many, which share the machine."""
    places = defaultdict(list)
    for place in measured.lone:
        places[place.batch_size].append(place)
    return {size: _middle(measured.lone[max(found)]) for size, found in places.items()}


def _middle(steps: Sequence[Step]) -> float:
    return median(step.seconds for step in steps)


def _computing(steps: Sequence[Step]) -> float:
    return median(step.seconds - step.wait_seconds for step in steps)
