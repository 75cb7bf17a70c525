"""From a study's runs to what a prediction rests on: cells, and the anatomy of their steps."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.collectives import Sample
from pipelines.compare.collect import Selection
from pipelines.errors import InputError
from pipelines.runs import ALL_REDUCE_TAG, STUDY_TAG, RunRecord
from pipelines.strategies import FRAMEWORK_TITLES, WITHOUT_ALL_REDUCE, Framework

__all__ = ["Measured", "Step", "anatomies_of", "measurements"]

_GRADIENT_BYTES = {"float64": 8}
_MIXED_AND_SINGLE_BYTES = 4
"""Mixed precision keeps its gradients in float32."""


class Step(NamedTuple):
    """One step of one repeat."""

    seconds: float
    wait_seconds: float
    """The part of it spent waiting for a batch; 0 where it was not measured, in either kind."""


class Place(NamedTuple):
    """What decides how long a worker's step takes by itself."""

    workers: int
    """How many of them there are; they share the machine."""
    global_batch_size: int

    @property
    def batch_size(self) -> float:
        """Examples per worker."""
        return self.global_batch_size / self.workers


@dataclass(frozen=True)
class Measured:
    """One framework and strategy under one kind of scaling."""

    framework: Framework
    strategy: str
    scaling: str
    strategy_options: str
    """What of the strategy's options is not as it is by default, as JSON."""
    gradient_bytes: int
    cells: dict[Place, list[Step]]
    """The repeats of each cell."""
    lone: dict[Place, list[Step]]
    """Steps of a worker that talks to none of the others beside it."""
    samples: list[Sample]
    """All-reduces."""

    @property
    def base(self) -> Place:
        """The base case of scaling: the smallest worker count that finished."""
        return min(self.cells)

    @property
    def joint(self) -> list[Place]:
        """Those of two or more workers of which the cell and its anatomy are known."""
        return sorted(place for place in self.cells if place.workers > 1 and place in self.lone)

    def global_batch_size(self, workers: int) -> int:
        """Examples in one step over that many workers, by the kind of scaling."""
        if self.scaling == "strong":
            return self.base.global_batch_size
        return round(self.base.batch_size * workers)

    @property
    def base_throughput(self) -> float:
        """Median examples per second of the base case."""
        steps = self.cells[self.base]
        return self.base.global_batch_size / median(step.seconds for step in steps)

    def resampled(self, rng: np.random.Generator, ratios: NDArray[np.float64]) -> Self:
        """The same with its repeats resampled, and its all-reduces' residuals dealt anew.

        ``ratios`` are measured / fitted of each all-reduce.
        """

        def again(steps: list[Step]) -> list[Step]:
            return [steps[index] for index in rng.integers(0, len(steps), len(steps))]

        drawn = rng.choice(ratios, len(ratios)) / ratios
        return replace(
            self,
            cells={place: again(steps) for place, steps in self.cells.items()},
            lone={place: again(steps) for place, steps in self.lone.items()},
            samples=[
                sample._replace(seconds=sample.seconds * float(ratio))
                for sample, ratio in zip(self.samples, drawn, strict=True)
            ],
        )


def anatomies_of(records: Sequence[RunRecord], study_ids: Sequence[str]) -> list[RunRecord]:
    """The finished runs of studies that took steps apart."""
    return [
        run
        for run in records
        if run.kind == "anatomy"
        and run.status == "FINISHED"
        and run.tags.get(STUDY_TAG, "") in study_ids
    ]


def measurements(selection: Selection, anatomies: Sequence[RunRecord]) -> list[Measured]:
    """What is known of each framework, strategy and kind of scaling, but of ``WITHOUT_ALL_REDUCE``.

    Raises:
        InputError: if the communication of one is not known, saying what to run.
    """
    series: dict[tuple[str, Framework, str], dict[Place, list[RunRecord]]] = defaultdict(dict)
    for key, runs in selection.cells.items():
        if key.strategy not in WITHOUT_ALL_REDUCE:
            series[key.scaling, key.framework, key.strategy][_place(runs[0])] = runs
    if not series:
        raise InputError(
            f"study '{selection.title}' has no strategy whose workers meet in an all-reduce: "
            "run one with tf.strategy=multi_worker_mirrored and torch.strategy=ddp"
        )
    found = []
    for (scaling, framework, strategy), cells in series.items():
        own = [run for run in anatomies if _belongs(run, framework, strategy)]
        measured = _measured(cells, own)
        if not (measured.joint and measured.samples):
            raise InputError(
                f"no anatomy of {FRAMEWORK_TITLES[framework]} {strategy}, {scaling} scaling, at 2 "
                f"or more workers in study '{selection.title}': run `tandem study` with 2 or "
                "more in study.workers"
            )
        found.append(measured)
    return found


def _measured(cells: dict[Place, list[RunRecord]], anatomies: Sequence[RunRecord]) -> Measured:
    lone: dict[Place, list[Step]] = defaultdict(list)
    for run in anatomies:
        lone[_place(run)].append(_lone_step(run))
    known = cells[min(cells)][0].params
    return Measured(
        framework=cast(Framework, known["framework"]),
        strategy=known["strategy"],
        scaling=known["scaling"],
        strategy_options=known["strategy_options"],
        gradient_bytes=_gradient_bytes(anatomies),
        cells={place: [_cell_step(run) for run in runs] for place, runs in cells.items()},
        lone=dict(lone),
        samples=[sample for run in anatomies for sample in _samples(run)],
    )


def _belongs(run: RunRecord, framework: Framework, strategy: str) -> bool:
    return (run.params.get("framework"), run.params.get("strategy")) == (framework, strategy)


def _place(run: RunRecord) -> Place:
    return Place(int(run.params["workers"]), int(run.params["global_batch_size"]))


def _cell_step(run: RunRecord) -> Step:
    waited = run.metrics.get("data_wait_seconds", 0.0)
    return Step(run.metrics["step_seconds"], waited / run.timed_steps)


def _lone_step(run: RunRecord) -> Step:
    return Step(run.metrics["lone_step_seconds"], run.metrics.get("lone_data_wait_seconds", 0.0))


def _gradient_bytes(anatomies: Sequence[RunRecord]) -> int:
    return max(
        (
            int(run.params["parameters"])
            * _GRADIENT_BYTES.get(run.params["precision"], _MIXED_AND_SINGLE_BYTES)
            for run in anatomies
        ),
        default=0,
    )


def _samples(run: RunRecord) -> list[Sample]:
    workers = int(run.params["workers"])
    measured: dict[str, float] = json.loads(run.tags.get(ALL_REDUCE_TAG, "{}"))
    return [Sample(workers, float(size), seconds) for size, seconds in measured.items()]
