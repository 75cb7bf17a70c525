"""One execution of a framework's DAG: in a process of its own, timed, and tracked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.cell import study_params
from pipelines.component_work import ComponentTimes
from pipelines.config import Config
from pipelines.dag import RESULT_NAME, PipelineResult
from pipelines.folder_lock import held_alone
from pipelines.hardware import available_cores
from pipelines.ingest.dataset import Dataset
from pipelines.launch import launch
from pipelines.parity.software import describe_framework
from pipelines.runs import COMPONENT_STARTUP_TAG, COMPONENT_WORK_TAG, COMPONENTS_TAG
from pipelines.strategies import Framework

__all__ = ["run_pipeline"]

OnComponent = Callable[[str, int, int], None]
"""Called with a component's name, its place in the DAG, and the number of components."""


def run_pipeline(
    config: Config,
    framework: Framework,
    dataset: Dataset,
    study_id: str,
    on_component: OnComponent,
    workers: int = 1,
) -> tuple[PipelineResult, float]:
    """Run the framework's whole DAG here; returns its result and the seconds it took.

    Its training step trains on ``workers`` workers.

    Raises:
        WorkError: if a component failed.
        InputError: if another process runs it in the same output.
    """
    output = config.output / "pipelines" / framework
    with held_alone(output, "give another output"):
        return _run(config, framework, dataset, study_id, on_component, workers, output)


def _run(
    config: Config,
    framework: Framework,
    dataset: Dataset,
    study_id: str,
    on_component: OnComponent,
    workers: int,
    output: Path,
) -> tuple[PipelineResult, float]:
    resolved = config.dump(output / "config.yaml")
    params = {
        **study_params(config, dataset.manifest),
        "framework": framework,
        "workers": workers,
        **({"strategy": config.strategy(framework)} if workers > 1 else {}),
        **describe_framework(config, framework),
    }
    tracking.prepare_store(config)
    run_id = tracking.create_run(config, f"{framework} pipeline", "pipeline", study_id, params)
    tracking.log_dataset(config, run_id, dataset)
    (output / RESULT_NAME).unlink(missing_ok=True)  # an earlier execution's
    begun = 0
    times = ComponentTimes()

    def on_event(_rank: int, event: dict[str, Any]) -> None:
        nonlocal begun
        times.take(event)
        if event["event"] == "component":
            begun += 1
            on_component(event["name"], begun, event["of"])

    with tracking.ended_if_failed(config, run_id):
        seconds = launch(
            framework,
            [
                "pipeline",
                *("--config", str(resolved)),
                *("--output", str(output)),
                *("--workers", str(workers)),
            ],
            logs=output / "logs",
            threads_per_worker=len(available_cores()),  # a DAG has the machine to itself
            environment=config.child_variables,
            on_event=on_event,
        )
        told = {"work": times.work, "startup": times.startup}
        result = PipelineResult.read(output).model_copy(update=told)
        result.write(output)
    metrics = {f"{stage}_stage_seconds": spent for stage, spent in result.stages.items()}
    metrics |= {
        "pipeline_seconds": seconds,
        "cached_stages": float(len(result.cached)),
        "blessed": float(result.blessed),
        **_overhead(result, seconds),
    } | result.metrics
    tags = {
        COMPONENTS_TAG: json.dumps(result.components),
        COMPONENT_WORK_TAG: json.dumps(result.work),
        COMPONENT_STARTUP_TAG: json.dumps(result.startup),
    }
    tracking.log_metrics(config, run_id, metrics, tags)
    tracking.finish_run(config, run_id, "FINISHED")
    return result, seconds


def _overhead(result: PipelineResult, seconds: float) -> dict[str, float]:
    """What the DAG took beyond its components' work; only if every one that ran told of it."""
    found = {"pipeline_processes": float(result.processes)}
    if (set(result.components) - set(result.cached)) <= result.startup.keys():
        work = sum(result.work.values())
        found["pipeline_work_seconds"] = work
        found["pipeline_startup_seconds"] = sum(result.startup.values())
        found["pipeline_overhead_seconds"] = seconds - work
    return found
