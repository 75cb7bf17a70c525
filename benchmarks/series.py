"""A long series of training runs of one framework in pairs, kept on disk run by run.

The pairs are of two comparisons: ``equal``, two runs of the same, and ``slowed``, where side b
loses a known share of its speed. They take turns as two worker counts do in a study
(``pipelines.study.plan``), so both see the same machine, and who goes first alternates as there.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from pipelines import tracking
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.ingest import ingest
from pipelines.launch import launch
from pipelines.run_folder import RESULT_NAME
from pipelines.strategies import Framework

__all__ = ["COMPARISONS", "SLOWED_SHARE", "Comparison", "Pair", "Run", "Series"]

Comparison = Literal["equal", "slowed"]
Side = Literal["a", "b"]
Pair = tuple[float, float]
"""The throughputs of sides a and b, in examples per second."""

COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)
SLOWED_SHARE = 0.05
"""What side b of ``slowed`` adds to the time of each of its steps."""

_SIDES: tuple[Side, ...] = get_args(Side)
_RUNS_NAME = "runs.jsonl"
_SECONDS_BETWEEN_LOOKS = 5.0


@dataclass(frozen=True)
class Run:
    """One training run, on one worker."""

    number: int
    """Of its pair in its comparison, from 0."""
    comparison: Comparison
    side: Side
    examples_per_second: float
    wall_seconds: float
    load_average: float
    """Of the machine in the minute before it began."""
    begun: float
    """Seconds since 1970."""
    config_sha256: str


class Series:
    """The runs of one framework, in the order in which they ran."""

    def __init__(self, config: Config, framework: Framework) -> None:
        """Take what earlier calls have left in the configuration's output.

        Raises:
            InputError: if that was measured by another configuration.
        """
        self.framework = framework
        self._config = config
        self._file = config.output / _RUNS_NAME
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        self.runs = [Run(**json.loads(line)) for line in lines]
        if any(run.config_sha256 != config.digest() for run in self.runs):
            raise InputError(
                f"--runs: {self._file} has runs of another configuration; give another folder"
            )

    def pairs(self, comparison: Comparison) -> list[Pair]:
        """The throughputs of each pair that is complete."""
        found: dict[int, dict[Side, float]] = {}
        for run in self.runs:
            if run.comparison == comparison:
                found.setdefault(run.number, {})[run.side] = run.examples_per_second
        return [(each["a"], each["b"]) for each in found.values() if len(each) == len(_SIDES)]

    def measure(
        self,
        pairs: Mapping[Comparison, int],
        say: Callable[[str], None],
        greatest_load: float = math.inf,
    ) -> None:
        """Run what is missing of so many pairs of each comparison, and keep each run at once.

        A pair waits until the machine's load average is at most ``greatest_load``.

        Raises:
            WorkError: if a run failed.
        """
        config, output = self._config, self._config.output
        done = {(run.number, run.comparison, run.side) for run in self.runs}
        left = [
            (number, comparison, missing)
            for number, comparison, sides in _plan(pairs)
            if (missing := [side for side in sides if (number, comparison, side) not in done])
        ]
        if not left:
            return
        ingest(config)
        tracking.prepare_store(config)
        config.dump(output / "config.yaml")
        for number, comparison, sides in left:
            while os.getloadavg()[0] > greatest_load:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            say(f"{self.framework}: pair {number + 1} of {pairs[comparison]}, {comparison}")
            for side in sides:
                self._keep(self._run(number, comparison, side))

    def _run(self, number: int, comparison: Comparison, side: Side) -> Run:
        config, folder = self._config, self._config.output / "run"
        shutil.rmtree(folder, ignore_errors=True)  # of the run before
        arguments = ["train", "--config", str(config.output / "config.yaml")]
        arguments += ["--output", str(folder)]
        slowed: dict[str, Any] = {}
        if (comparison, side) == ("slowed", "b"):
            arguments = [self.framework, str(SLOWED_SHARE), *arguments]
            slowed = {"module": "benchmarks.slowed"}
        load, begun = os.getloadavg()[0], time.time()
        seconds = launch(
            self.framework,
            arguments,
            logs=folder,
            threads_per_worker=config.study.threads_per_worker,
            environment=config.child_variables,
            **slowed,
        )
        result = folder / RESULT_NAME
        if not result.exists():
            raise WorkError(f"a run of {self.framework} ended without a result ({folder})")
        speed = json.loads(result.read_text())["metrics"]["examples_per_second"]
        return Run(number, comparison, side, speed, seconds, load, begun, config.digest())

    def _keep(self, run: Run) -> None:
        self.runs.append(run)
        with self._file.open("a") as kept:
            kept.write(json.dumps(asdict(run)) + "\n")


def _plan(
    pairs: Mapping[Comparison, int],
) -> Iterator[tuple[int, Comparison, tuple[Side, ...]]]:
    for number in range(max(pairs.values())):
        for place, comparison in enumerate(COMPARISONS):
            if number < pairs[comparison]:
                yield number, comparison, _SIDES if (number + place) % 2 == 0 else _SIDES[::-1]
