"""Synthetic studies whose every figure follows from a known model of a step."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.runs import (
    ALL_REDUCE_TAG,
    COMPARABLE_FIELDS,
    KIND_TAG,
    PARITY_FIELDS,
    PARITY_PASSED,
    PARITY_SIDE_FIELDS,
    STUDY_TAG,
    RunRecord,
)

STUDY = "20260101T120000Z"
STRATEGIES = {"tf": "multi_worker_mirrored", "torch": "ddp"}
SIZES = [4**power * 1024 for power in range(7)]
BATCH = 64


def ring(workers: int, size: float, alpha: float, beta: float) -> float:
    return 2 * (workers - 1) * alpha + 2 * (workers - 1) / workers * size * beta


@dataclass
class World:
    """A machine on which steps take what these figures say."""

    alpha: float = 50e-6
    beta: float = 1e-9
    parameters: int = 1_000_000
    fixed_seconds: float = 0.002
    seconds_per_example: float = 1e-4
    wait_seconds: float = 0.001
    hidden_seconds: float = 0.001
    extra_seconds: float = 0.0
    spread: Sequence[float] = (1.0,)
    """By repeat, what the cells' steps are longer; one repeat has no interval to wait for."""
    params: dict[str, str] = field(default_factory=dict)
    runs: list[RunRecord] = field(default_factory=list)

    def lone_seconds(self, batch_size: float) -> float:
        return self.fixed_seconds + self.seconds_per_example * batch_size + self.wait_seconds

    def step_seconds(self, workers: int, batch_size: float = BATCH) -> float:
        if workers == 1:
            return self.lone_seconds(batch_size)
        reduced = ring(workers, 4 * self.parameters, self.alpha, self.beta)
        exposed = max(0.0, reduced - self.hidden_seconds) + self.extra_seconds
        return self.lone_seconds(batch_size) + exposed

    def cells(self, framework: str, workers: int, scaling: str = "weak") -> None:
        batch = BATCH if scaling == "weak" else BATCH / workers
        for repeat, factor in enumerate(self.spread):
            step = self.step_seconds(workers, batch) * factor
            self.add(
                "cell",
                framework,
                workers,
                scaling,
                {
                    "step_seconds": step,
                    "data_wait_seconds": 180 * self.wait_seconds,
                    "examples_per_second": batch * workers / step,
                },
                repeat=str(repeat),
            )

    def anatomy(self, framework: str, workers: int, scaling: str = "weak") -> RunRecord:
        batch = BATCH if scaling == "weak" else BATCH / workers
        lone = self.lone_seconds(batch)
        tags = {}
        if workers > 1:
            took = {str(s): ring(workers, s, self.alpha, self.beta) for s in SIZES}
            tags[ALL_REDUCE_TAG] = json.dumps(took)
        metrics = {
            "lone_step_seconds": lone,
            "lone_data_wait_seconds": self.wait_seconds,
            "compute_step_seconds": lone - self.wait_seconds,
        }
        return self.add("anatomy", framework, workers, scaling, metrics, tags=tags, repeat="0")

    def study(self, workers: Sequence[int] = (1, 2), scaling: str = "weak") -> "World":
        for framework in STRATEGIES:
            for count in workers:
                self.cells(framework, count, scaling)
                self.anatomy(framework, count, scaling)
        self.prove()
        return self

    def add(
        self,
        kind: str,
        framework: str,
        workers: int,
        scaling: str,
        metrics: dict[str, float],
        tags: dict[str, str] | None = None,
        **params: str,
    ) -> RunRecord:
        known = self.common() | {
            "study": "quickstart",
            "framework": framework,
            "strategy": STRATEGIES[framework],
            "strategy_options": "{}",
            "framework_version": "1.0",
            "workers": str(workers),
            "scaling": scaling,
            "global_batch_size": str(BATCH * workers if scaling == "weak" else BATCH),
            "parameters": str(self.parameters),
        }
        run = RunRecord(
            run_id=f"{len(self.runs):032x}",
            name=f"{framework} x{workers} {kind}",
            status="FINISHED",
            start_time=1_767_268_800.0 + 30 * len(self.runs),
            params=known | self.params | params,
            tags={KIND_TAG: kind, STUDY_TAG: STUDY} | (tags or {}),
            metrics=metrics,
        )
        self.runs.append(run)
        return run

    def common(self) -> dict[str, str]:
        numbers = {"batch_size_per_worker": str(BATCH), "steps": "200", "warmup_steps": "20"}
        words = {"precision": "float32", "network": "real", "software_build": "cpu"}
        return dict.fromkeys(COMPARABLE_FIELDS, "same") | numbers | words

    def prove(self, **params: Any) -> None:
        sides = {
            f"{run.params['framework']}_{name}": run.params[name]
            for run in self.runs
            if run.kind == "cell"
            for name in PARITY_SIDE_FIELDS
        }
        known = self.common() | self.params
        self.runs.append(
            RunRecord(
                run_id=f"{len(self.runs):032x}",
                name="parity",
                status="FINISHED",
                start_time=1_767_268_800.0,
                params={name: known[name] for name in PARITY_FIELDS} | sides | params,
                tags={KIND_TAG: "parity"},
                metrics={PARITY_PASSED: 1.0},
            )
        )


@pytest.fixture
def world() -> type[World]:
    return World
