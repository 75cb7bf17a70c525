"""One worker's life in a training run, the same for both frameworks.

A framework brings functions of its own; everything around them stands here once: tracking,
phases, the reduction over workers, and what is written down at the end.
"""

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cell import Cell, cell_params
from pipelines.config import Config
from pipelines.ingest.dataset import Dataset
from pipelines.metrics import reduce_over_workers
from pipelines.recorder import Recorder
from pipelines.strategies import Framework
from pipelines.worker import Worker
from pipelines.workloads import get_workload

__all__ = ["RESULT_NAME", "Twin", "run_worker"]

RESULT_NAME = "result.json"


@dataclass(frozen=True)
class Twin:
    """The functions in which the frameworks differ, by their names in the twins' files."""

    framework: Framework
    build_strategy: Callable[..., Any]
    gather_over_workers: Callable[..., Any]
    describe_software: Callable[[], dict[str, str]]
    train: Callable[..., Any]
    evaluate: Callable[..., dict[str, float]]


def run_worker(
    twin: Twin,
    config: Config,
    *,
    started: float,
    output: Path,
    scaling: str,
    repeat: int,
    study_id: str,
    transformed: Path | None = None,
) -> None:
    """Train and evaluate as the worker that the environment describes.

    ``started`` is ``time.perf_counter()`` at the program's first line. Rank 0 logs the run and
    writes ``result.json`` to ``output``.
    """
    recorder = Recorder()
    recorder.add("import_seconds", time.perf_counter() - started)
    worker = Worker.from_environment()
    dataset = Dataset.open(config.dataset_dir)
    workload = get_workload(config.workload)
    workload.check_dataset(dataset.manifest)
    strategy_name = config.strategy(twin.framework)
    cell = Cell(twin.framework, strategy_name, worker.workers, scaling, repeat)
    params = {
        **cell_params(config, dataset.manifest, cell),
        **twin.describe_software(),
        "python_version": platform.python_version(),
        "parameters": sum(value.size for value in workload.initial_weights(0).values()),
        "training_flops_per_example": workload.training_flops_per_example(),
    }
    with ExitStack() as stack:
        with recorder.phase("tracking_seconds"):
            from pipelines.tracking import tracked_run

            run = stack.enter_context(tracked_run(config, worker, cell.name, study_id, params))
            run.log_params(params)
            run.log_config()
            run.log_dataset(dataset)
        with recorder.phase("rendezvous_seconds"):
            strategy = twin.build_strategy(strategy_name, worker)
        model = twin.train(config, workload, strategy, worker, recorder, transformed)
        with recorder.phase("evaluate_seconds"):
            evaluation = twin.evaluate(config, workload, model, transformed)
        recorder.metrics.update(evaluation)
        metrics, losses = _over_workers(twin, strategy, recorder)
        run.log_metrics(metrics)
        run.log_series("train_loss", losses)
        if worker.is_chief:
            result = {"run_id": run.run_id, "metrics": metrics, "train_loss": losses}
            (output / RESULT_NAME).write_text(json.dumps(result))


def _over_workers(
    twin: Twin, strategy: Any, recorder: Recorder
) -> tuple[dict[str, float], list[float]]:
    """The run's metrics, and the loss of each step over the global batch, on every worker."""
    mine = recorder.finish()
    names = sorted(mine)
    gathered = twin.gather_over_workers(strategy, np.array([mine[name] for name in names]))
    metrics = reduce_over_workers([dict(zip(names, row, strict=True)) for row in gathered.tolist()])
    losses = twin.gather_over_workers(strategy, np.array(recorder.losses)).mean(axis=0)
    return metrics, losses.tolist()
