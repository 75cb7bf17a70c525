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
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cell import Cell, cell_params
from pipelines.config import Config
from pipelines.ingest.dataset import Dataset
from pipelines.metrics import reduce_over_workers
from pipelines.parity.probe import Probe, probed
from pipelines.parity.trace import TRACE_NAME
from pipelines.recorder import Recorder
from pipelines.strategies import Framework
from pipelines.worker import Worker
from pipelines.workloads import Weights, get_workload

__all__ = ["RESULT_NAME", "Twin", "run_probe", "run_step", "run_worker"]

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
    weights_of: Callable[..., Weights]

    @classmethod
    def load(cls, framework: Framework) -> "Twin":
        """Import what a training worker needs of a framework's package, which takes seconds."""
        files = {
            "build_strategy": "strategy",
            "gather_over_workers": "strategy",
            "describe_software": "strategy",
            "train": "train",
            "evaluate": "evaluate",
            "weights_of": "model",
        }
        package = f"{framework}_pipeline"
        return cls(
            framework,
            **{
                name: getattr(import_module(f"{package}.{file}"), name)
                for name, file in files.items()
            },
        )


def run_worker(
    twin: Twin,
    config: Config,
    *,
    started: float,
    output: Path,
    scaling: str,
    repeat: int,
    study_id: str,
    replicas: int = 1,
    transformed: Path | None = None,
) -> None:
    """Train and evaluate as the worker that the environment describes.

    ``started`` is ``time.perf_counter()`` at the program's first line. Rank 0 logs the run and
    writes ``result.json`` to ``output``.
    """
    recorder = Recorder()
    recorder.add("import_seconds", time.perf_counter() - started)
    worker = Worker.from_environment(replicas=replicas)
    dataset = Dataset.open(config.dataset_dir)
    workload = get_workload(config, dataset.manifest)
    strategy_name = config.strategy(twin.framework)
    cell = Cell(twin.framework, strategy_name, worker.all_replicas, scaling, repeat)
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
            strategy = twin.build_strategy(config, worker)
        model = twin.train(config, workload, strategy, worker, recorder, transformed)
        with recorder.phase("evaluate_seconds"):
            evaluation = twin.evaluate(config, workload, model, transformed)
        recorder.metrics.update(evaluation)
        if workload.predicts_sequences:
            tokens = workload.predictions_per_example
            recorder.add("tokens_per_second", recorder.metrics["examples_per_second"] * tokens)
        metrics, losses = _over_workers(twin, strategy, recorder)
        run.log_metrics(metrics)
        run.log_series("train_loss", losses)
        if worker.is_chief:
            result = {"run_id": run.run_id, "metrics": metrics, "train_loss": losses}
            (output / RESULT_NAME).write_text(json.dumps(result))


def run_step(
    twin: Twin,
    config: Config,
    *,
    dataset: Path,
    transformed: Path,
    transform_fn: Path,
    output: Path,
    replicas: int = 1,
) -> None:
    """Train as a worker of a DAG's training step; rank 0 exports the model to ``output``.

    ``dataset`` and ``transformed`` are folders of the raw and of the transformed examples,
    ``transform_fn`` is what the transform step fitted.
    """
    export = import_module(f"{twin.framework}_pipeline.export").export
    worker = Worker.from_environment(replicas=replicas)
    raw = Dataset.open(dataset)
    workload = get_workload(config, raw.manifest)
    strategy = twin.build_strategy(config, worker)
    model = twin.train(config, workload, strategy, worker, Recorder(), transformed)
    if worker.is_chief:
        export(workload, model, transform_fn, raw, output)
    # A worker that left before the chief is done would count as lost.
    twin.gather_over_workers(strategy, np.zeros(1))


def run_probe(twin: Twin, config: Config, probe: Probe, output: Path, replicas: int = 1) -> None:
    """Train and evaluate as the worker that the environment describes, every step written down.

    Nothing is tracked. Rank 0 writes ``trace.npz`` to ``output``: ``loss``, ``gradient_norm`` and
    ``weight_norm`` of every step, ``weights/<name>`` at the end, and ``metric/<name>``.
    """
    recorder, worker = Recorder(traced=True), Worker.from_environment(replicas=replicas)
    workload = get_workload(config, Dataset.open(config.dataset_dir).manifest)
    strategy = twin.build_strategy(config, worker)
    model = twin.train(config, probed(workload, probe), strategy, worker, recorder, None)
    evaluation = twin.evaluate(config, workload, model, None)
    _, losses = _over_workers(twin, strategy, recorder)
    if worker.is_chief:
        written: dict[str, Any] = {
            "loss": np.array(losses),
            "gradient_norm": np.array(recorder.gradient_norms),
            "weight_norm": np.array(recorder.weight_norms),
            **{f"weights/{name}": values for name, values in twin.weights_of(model).items()},
            **{f"metric/{name}": np.array(value) for name, value in evaluation.items()},
        }
        np.savez(output / TRACE_NAME, **written)


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
