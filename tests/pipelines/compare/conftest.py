"""Synthetic studies: runs as the tracking store would give them back."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pipelines.compare import Report
from pipelines.compare.overhead_model import Operation, Overhead, PipelineOverhead, Resources
from pipelines.metrics import PHASES
from pipelines.parity.model import Bounds, Comparison, Curve, Parity, StepCheck
from pipelines.prices import DEFAULT_PRICES, Prices, load_prices
from pipelines.runs import (
    COMPONENT_STARTUP_TAG,
    COMPONENT_WORK_TAG,
    FAULT_TAG,
    KIND_TAG,
    PARITY_FIELDS,
    PARITY_PASSED,
    PARITY_SIDE_FIELDS,
    SLOWEST_WORKER_TAG,
    STUDY_TAG,
    RunRecord,
)
from pipelines.strategies import Framework

STUDY = "20250601T120000Z"
STRATEGIES = {"tf": "multi_worker_mirrored", "torch": "ddp"}
VERSIONS = {"tf": "2.21.0", "torch": "2.13.0"}
COMMON = {
    "study": "quickstart",
    "workload": "vision/tiny",
    "batch_size_per_worker": "64",
    "gradient_accumulation": "1",
    "steps": "200",
    "warmup_steps": "20",
    "optimizer": "adamw(learning_rate=0.001, weight_decay=0.01)",
    "schedule": "constant",
    "precision": "float32",
    "compile": "none",
    "activation_checkpointing": "False",
    "seed": "0",
    "reader": "shared",
    "threads_per_worker": "1",
    "hardware": "x86-64, 2 cores",
    "network": "real",
    "software_build": "cpu",
    "code_sha256": "ef56" * 16,
    "dataset_fingerprint": "ab12" * 16,
    "dataset_rows": "1797",
    "dataset_source": "digits",
    "python_version": "3.11.9",
}
PHASE_SECONDS = {
    "tf": (3.4, 1.6, 0.9, 1.1, 2.8, 0.9, 0.4),
    "torch": (4.2, 1.5, 0.4, 0.3, 0.2, 0.6, 0.3),
}
STAGES = {"tf": (9.1, 14.8, 13.2, 11.6, 1.4), "torch": (3.2, 3.5, 9.8, 4.1, 0.9)}


class StudyBuilder:
    """Makes runs one after another; each gets its own id and a later start time.

    Unless ``proven`` is false, parity has been shown for all cells of both frameworks.
    """

    def __init__(self) -> None:
        self.runs: list[RunRecord] = []
        self.proven = True

    def cell(
        self,
        framework: str = "tf",
        workers: int = 1,
        repeat: int = 0,
        rate: float | None = 1000.0,
        status: str = "FINISHED",
        study: str = STUDY,
        strategy: str | None = None,
        without: Sequence[str] = (),
        **params: str,
    ) -> RunRecord:
        strategy = strategy or STRATEGIES[framework]
        number = len(self.runs)
        values = COMMON | {
            "framework": framework,
            "strategy": strategy,
            "strategy_options": "{}",
            "workers": str(workers),
            "scaling": "weak",
            "repeat": str(repeat),
            "global_batch_size": str(64 * workers),
            "framework_version": VERSIONS[framework],
        }
        metrics: dict[str, float] = {}
        if rate is not None:
            train = 180 * 64 * workers / rate
            first = PHASE_SECONDS[framework]
            before = sum(first[:5]) + first[2] * (workers - 1) + 0.1
            wall = before + first[5] + train + first[6] + 0.8
            metrics = {
                "examples_per_second": rate,
                "step_seconds": train / 180,
                "start_seconds": 0.1,
                "import_seconds": first[0],
                "tracking_seconds": first[1],
                "rendezvous_seconds": first[2] * workers,
                "build_seconds": first[3],
                "restore_seconds": 0.0,
                "first_step_seconds": first[4],
                "warmup_seconds": first[5],
                "train_seconds": train,
                "checkpoint_seconds": 0.0,
                "evaluate_seconds": first[6],
                "report_seconds": 0.5,
                "exit_seconds": 0.2,
                "wall_seconds": wall,
                "time_to_first_step_seconds": before + 0.4 * (workers - 1),
                "goodput_seconds": first[5] + train,
                "goodput_share": (first[5] + train) / wall,
                "badput_initialisation_seconds": before - first[1],
                "badput_tracking_seconds": first[1] + 0.5,
                "badput_evaluation_seconds": first[6],
                "badput_shutdown_seconds": 0.3,
                "network_bytes": 180.0 * 2**10 * workers,
                "cpu_seconds": 10.0 * workers,
                "processes": 2.0 * workers,
                "listening_ports": float(workers),
                "environment_variables": 11.0,
                "train_loss": 0.05,
                "eval_loss": 0.11,
                "eval_accuracy": 0.964 + 0.002 * repeat,
                "peak_memory_bytes": 611.0 * 2**20,
            }
        run = RunRecord(
            run_id=f"{number:032x}",
            name=f"{framework}-{strategy}-{workers}w-weak-r{repeat}",
            status=status,
            start_time=1_748_779_200.0 + 30 * number,
            params={k: v for k, v in (values | params).items() if k not in without},
            tags={KIND_TAG: "cell"}
            | ({STUDY_TAG: study} if study else {})
            | ({SLOWEST_WORKER_TAG: _slowest(metrics, workers)} if metrics else {}),
            metrics=metrics,
        )
        self.runs.append(run)
        if self.proven:
            self._prove(run)
        return run

    def parity(self, passed: bool = True, status: str = "FINISHED", **params: str) -> RunRecord:
        """A verdict on the cells as they are by default."""
        number = len(self.runs)
        sides = {
            f"{framework}_{field}": value
            for framework in ("tf", "torch")
            for field, value in (
                ("strategy", STRATEGIES[framework]),
                ("strategy_options", "{}"),
                ("framework_version", VERSIONS[framework]),
                ("software_build", "cpu"),
            )
        }
        run = RunRecord(
            run_id=f"{number:032x}",
            name="parity",
            status=status,
            start_time=1_748_779_200.0 + 30 * number,
            params={field: COMMON[field] for field in PARITY_FIELDS}
            | {"parity_steps": "200", "parity_workers": "1, 2, 4"}
            | sides
            | params,
            tags={KIND_TAG: "parity"},
            metrics={PARITY_PASSED: float(passed)},
        )
        self.runs.append(run)
        return run

    def _prove(self, cell: RunRecord) -> None:
        others = {run.params.get("framework"): run for run in self.runs if run.kind == "cell"}
        pair = others | {cell.params["framework"]: cell}
        if set(pair) == {"tf", "torch"}:
            sides = {
                f"{framework}_{field}": run.params.get(field, "")
                for framework, run in pair.items()
                for field in PARITY_SIDE_FIELDS
            }
            common = {field: cell.params.get(field, "") for field in PARITY_FIELDS}
            self.parity(**common, **sides)

    def repeats(self, framework: str, workers: int, rates: Sequence[float], **more: Any) -> None:
        for repeat, rate in enumerate(rates):
            self.cell(framework, workers, repeat, rate, **more)

    def pipeline(
        self,
        framework: str,
        status: str = "FINISHED",
        study: str = STUDY,
        metrics: dict[str, float] | None = None,
        **params: str,
    ) -> RunRecord:
        names = ("validate", "transform", "train", "evaluate", "push")
        stages = dict(zip(names, STAGES[framework], strict=True))
        number = len(self.runs)
        run = RunRecord(
            run_id=f"{number:032x}",
            name=f"{framework}-pipeline",
            status=status,
            start_time=1_748_779_200.0 + 30 * number,
            params={
                "framework": framework,
                "study": COMMON["study"],
                "dataset_fingerprint": COMMON["dataset_fingerprint"],
            }
            | params,
            tags={
                KIND_TAG: "pipeline",
                "tandem.components": json.dumps({f"{name}-step": s for name, s in stages.items()}),
                COMPONENT_WORK_TAG: json.dumps(
                    {f"{name}-step": s - 1 for name, s in stages.items()}
                ),
                COMPONENT_STARTUP_TAG: json.dumps({f"{name}-step": 0.8 for name in stages}),
            }
            | ({STUDY_TAG: study} if study else {}),
            metrics={f"{name}_stage_seconds": s for name, s in stages.items()}
            | {
                "pipeline_seconds": sum(stages.values()) + 4,
                "pipeline_work_seconds": sum(stages.values()) - 5,
                "pipeline_startup_seconds": 4.0,
                "pipeline_overhead_seconds": 9.0,
                "pipeline_processes": 5.0,
                "cached_stages": 0.0,
                "blessed": 1.0,
                "eval_accuracy": 0.967,
            }
            | (metrics or {}),
        )
        self.runs.append(run)
        return run

    def rerun(self, framework: str) -> RunRecord:
        """The same DAG again, its five components from the cache."""
        metrics = {"pipeline_seconds": 6.5, "cached_stages": 5.0}
        return self.pipeline(framework, metrics=metrics)

    def recovery(self, framework: str, **metrics: float) -> RunRecord:
        number = len(self.runs)
        run = RunRecord(
            run_id=f"{number:032x}",
            name=f"{framework} recovery",
            status="FINISHED",
            start_time=1_748_779_200.0 + 30 * number,
            params=COMMON | {"framework": framework, "strategy": STRATEGIES[framework]},
            tags={
                KIND_TAG: "recovery",
                STUDY_TAG: STUDY,
                FAULT_TAG: "kill -9 of worker 1",
            },
            metrics={
                "notice_seconds": 0.1,
                "recovery_seconds": 9.9,
                "lost_steps": 7.0,
                "restarts": 1.0,
            }
            | metrics,
        )
        self.runs.append(run)
        return run

    def ledger(self, framework: str, **metrics: float) -> RunRecord:
        number = len(self.runs)
        run = RunRecord(
            run_id=f"{number:032x}",
            name=f"{framework} ledger",
            status="FINISHED",
            start_time=1_748_779_200.0 + 30 * number,
            params={"framework": framework, "study": COMMON["study"]},
            tags={KIND_TAG: "ledger", STUDY_TAG: STUDY},
            metrics={
                "direct_dependencies": 1.0,
                "total_dependencies": 205.0,
                "install_bytes": 2.0 * 2**30,
                "code_lines": 1488.0,
                "cyclomatic_complexity": 339.0,
            }
            | metrics,
        )
        self.runs.append(run)
        return run

    def change(self, run: RunRecord, **fields: Any) -> RunRecord:
        changed = replace(run, **fields)
        self.runs[self.runs.index(run)] = changed
        return changed


def _slowest(metrics: dict[str, float], workers: int) -> str:
    """The last worker, which came 0.4 s later to the rendezvous for each one before it."""
    phases = {
        name: metrics[name]
        for name in PHASES[: PHASES.index("first_step_seconds") + 1]
        if name in metrics
    }
    phases["import_seconds"] += 0.4 * (workers - 1)
    return json.dumps({"rank": workers - 1, "phases": phases})


def realistic() -> StudyBuilder:
    """Two frameworks, one and two workers, three repeats, two pipelines."""
    study = StudyBuilder()
    study.pipeline("tf")
    study.pipeline("torch")
    study.repeats("tf", 1, [2310.4, 2287.9, 2342.2])
    study.repeats("torch", 1, [2512.7, 2467.3, 2540.1])
    study.repeats("tf", 2, [3905.5, 3760.2, 4012.8])
    study.repeats("torch", 2, [4420.1, 4115.6, 4512.9])
    return study


@pytest.fixture
def verdict() -> Parity:
    """Both frameworks over three steps on one worker: the loss is told, and nothing else."""
    loss = StepCheck(
        quantity="loss",
        differences=[0.0, 1e-7, 2e-7],
        first_steps=2e-7,
        largest=2e-7,
        largest_step=3,
        times_floor=1.0,
        share_of_bound=0.2,
    )
    runs = ("tf x1", "torch x1")
    both = Comparison(
        kind="frameworks", left=runs[0], right=runs[1], steps=[loss], ends=[], divergence=None
    )
    return Parity(
        study=COMMON["study"],
        created="2025-06-01T12:00:00+00:00",
        passed=True,
        summary="the pair of runs agrees over 3 steps and in their final weights",
        claim="rounding",
        workload=COMMON["workload"],
        optimizer="adamw",
        precision="float32",
        global_batch_size=64,
        workers=[1],
        steps=3,
        first_steps=3,
        least={"loss": 1e-6},
        later={"loss": 1e-6},
        multiple=5.0,
        lookahead=0,
        floor_run=runs[0],
        floor_runs=1,
        bounds=[Bounds(quantity="loss", floor=[0.0, 1e-7, 2e-7], bound=[1e-6] * 3)],
        comparisons=[both],
        curves=[Curve(run=run, loss=[2.3, 2.2, 2.1]) for run in runs],
        params={f"{framework}_strategy": name for framework, name in STRATEGIES.items()},
    )


@pytest.fixture
def study() -> StudyBuilder:
    return StudyBuilder()


@pytest.fixture
def full_study() -> StudyBuilder:
    return realistic()


@pytest.fixture
def new_study() -> Callable[[], StudyBuilder]:
    return StudyBuilder


def overhead_of(
    framework: Framework, run_ids: Sequence[str], workers: int = 2, **fields: Any
) -> Overhead:
    """36 s of wall clock, of which 27 s are steps that count; nothing else was measured."""
    nothing = dict.fromkeys(Resources.model_fields)
    values = {
        "framework": framework,
        "strategy": STRATEGIES[framework],
        "workers": workers,
        "scaling": "weak",
        "first_step": {},
        "time_to_first_step_seconds": None,
        "wall_seconds": 36.0,
        "goodput_share": 0.75,
        "goodput": {"step": 27.0, "initialisation": 9.0},
        "resources": Resources(**nothing),
        "operation": Operation(**dict.fromkeys(Operation.model_fields)),
        "pipeline": None,
        "recovery": None,
        "mlflow_run_ids": list(run_ids),
    }
    return Overhead(**values | fields)


def dag_overhead(run_ids: Sequence[str] = ("d" * 32,), **fields: Any) -> PipelineOverhead:
    """58 s of a DAG, of which 40 s are its components' work."""
    values = {
        "seconds": 58.0,
        "cached_stages": 0,
        "work_seconds": 40.0,
        "startup_seconds": 12.0,
        "overhead_seconds": 18.0,
        "component_startup": {"train": 8.0, "push": 4.0},
        "component_work": {"train": 39.0, "push": 1.0},
        "cached_rerun_seconds": None,
        "processes": 2,
        "mlflow_run_ids": list(run_ids),
    }
    return PipelineOverhead(**values | fields)


def with_overhead(report: Report, **fields: Any) -> Report:
    """The report, with the same overhead of both frameworks at 2 workers."""
    told = {cell.framework: cell for cell in report.cells if cell.workers == 2}
    overhead = {
        framework: overhead_of(framework, cell.mlflow_run_ids, **fields)
        for framework, cell in told.items()
    }
    return report.model_copy(update={"overhead": overhead})


@pytest.fixture
def prices() -> Prices:
    """The shipped ones."""
    return load_prices(DEFAULT_PRICES)


@pytest.fixture
def make_overhead() -> Callable[..., Overhead]:
    return overhead_of


@pytest.fixture
def dag() -> Callable[..., PipelineOverhead]:
    return dag_overhead


@pytest.fixture
def add_overhead() -> Callable[..., Report]:
    return with_overhead
