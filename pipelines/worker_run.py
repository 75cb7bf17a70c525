"""One worker's life in a training run, the same for both frameworks.

A framework brings functions of its own; everything around them stands here once: tracking,
phases, the reduction over workers, and what is written down at the end.
"""

import json
import math
import os
import platform
import time
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import events
from pipelines.cell import Cell, cell_params, run_identity
from pipelines.checkpoints import CHECKPOINTS_FOLDER, Checkpoints
from pipelines.config import Config
from pipelines.errors import DivergedError, InputError
from pipelines.folder_lock import held_alone
from pipelines.goodput import goodput_metrics
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.reader import SharedBatches
from pipelines.metrics import PHASES, reduce_over_workers
from pipelines.parity.probe import Probe, probed
from pipelines.parity.trace import TRACE_NAME
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption
from pipelines.recorder import Recorder, process_age
from pipelines.resources import HostMeter
from pipelines.run_folder import DIVERGED_NAME, RESULT_NAME
from pipelines.runs import SLOWEST_WORKER_TAG
from pipelines.saver import Saver, Unsaved
from pipelines.twin import Twin
from pipelines.whole_file import write_whole
from pipelines.worker import Worker
from pipelines.workloads import Workload, get_workload

__all__ = ["WORKERS_NAME", "run_params", "run_probe", "run_step", "run_worker"]

WORKERS_NAME = "workers.json"
"""A run's artifact: each worker's phases, peak memory and processor time, in order of rank."""

_INSTEAD = "begin another run"
_PATIENCE_SECONDS = 100
"""Of a node that was lost, a file server holds the locks for a while: NFS, by default, for 90 s."""

_HOST_METRICS = ("network_bytes", "energy_joules")
_UNTIL_THE_FIRST_STEP = PHASES[: PHASES.index("first_step_seconds") + 1]


def run_worker(
    twin: Twin,
    config: Config,
    *,
    started: float,
    preemption: Preemption,
    output: Path,
    scaling: str,
    repeat: int,
    study_id: str,
    replicas: int = 1,
    transformed: Path | None = None,
) -> None:
    """Train and evaluate as the worker that the environment describes.

    ``started`` is ``time.perf_counter()`` at the program's first line; ``preemption`` is watched
    from early on. Rank 0 logs the run and writes ``result.json`` to ``output``. Started again with
    the same ``output``, it goes on with the same run, from its newest checkpoint.

    Raises:
        DivergedError: if the loss is not finite; ``diverged.json`` has the step and its examples.
        InputError: if ``output`` holds a run that has ended, is another one, or is still written to
            by an earlier attempt's workers.
    """
    now = time.perf_counter()
    born = now - process_age()
    recorder = Recorder(born=born)
    recorder.add("start_seconds", started - born)
    recorder.add("import_seconds", now - started)
    with recorder.phase("build_seconds"):
        worker = Worker.from_environment(replicas=replicas)
        if worker.role == "server":
            preemption.unwatch()  # it is in TensorFlow's hands, which would never see the note
        if (output / RESULT_NAME).exists():
            raise InputError(
                f"--output {output}: holds a run that has ended; choose another folder"
            )
        output.mkdir(parents=True, exist_ok=True)  # a pod's launcher is on another machine
        recorder.meter = HostMeter.of(worker, config.network.hosts)
        dataset = Dataset.open(config.dataset_dir)
        workload = get_workload(config, dataset.manifest)
        strategy_name = config.strategy(twin.framework)
        cell = Cell(twin.framework, strategy_name, worker.all_replicas, scaling, repeat)
        params = run_params(twin, config, dataset.manifest, workload, cell)
    with ExitStack() as stack:
        with recorder.phase("tracking_seconds"):
            from pipelines.tracking import tracked_run

            if worker.is_chief:  # an earlier attempt's may still be saving, its launcher long gone
                folder = output / CHECKPOINTS_FOLDER
                stack.enter_context(held_alone(folder, _INSTEAD, _PATIENCE_SECONDS))
            run = stack.enter_context(tracked_run(config, worker, cell, study_id, params, output))
            run.log_params(params)
            run.log_config()
            run.log_dataset(dataset)
        with recorder.phase("rendezvous_seconds"):
            arrived = time.time()
            strategy = twin.build_strategy(config, worker)
            arrivals = twin.gather_over_workers(strategy, np.array([arrived]))
            # By the hosts' own clocks, which may differ.
            skew = min(float(arrivals.max()), time.time()) - arrived
            recorder.set_aside("barrier", skew)
        with recorder.phase("restore_seconds"):
            saver = Saver(
                twin,
                config.checkpoint,
                steps=config.training.steps,
                store=Checkpoints(output / CHECKPOINTS_FOLDER, config.checkpoint.keep),
                identity=run_identity(config, dataset.manifest, cell),
                worker=worker,
                strategy=strategy,
                recorder=recorder,
                preemption=preemption,
            )
        try:
            model = twin.train(config, workload, strategy, worker, recorder, saver, transformed)
        except DivergedError as error:
            run.log_series("train_loss", saver.curve[: saver.diverged_at])
            if worker.is_chief:
                rows = None  # the framework's own reader shuffles as it likes
                if transformed is None and saver.diverged_at is not None:
                    shared = SharedBatches(config, workload, "train", worker)
                    rows = shared.rows(saver.diverged_at - 1)
                found = {"step": saver.diverged_at, "rows": rows}
                write_whole(output / DIVERGED_NAME, json.dumps(found) + "\n")
                events.emit("diverged", message=str(error))
            # A worker that left before would end the others, and leave this untold.
            twin.gather_over_workers(strategy, np.zeros(1))
            raise
        if saver.preempted_at is not None:
            run.log_series("train_loss", saver.curve)
            run.end_preempted(saver.preempted_at)
            events.emit("preempted", step=saver.preempted_at)
            return
        with recorder.phase("evaluate_seconds"):
            evaluation = twin.evaluate(config, workload, model, transformed)
        recorder.metrics.update(evaluation)
        if workload.predicts_sequences and "examples_per_second" in recorder.metrics:
            tokens = workload.predictions_per_example
            recorder.add("tokens_per_second", recorder.metrics["examples_per_second"] * tokens)
        with recorder.phase("report_seconds"):
            with recorder.waiting_for_others():
                twin.gather_over_workers(strategy, np.zeros(1))
            workers, losses = _gather_metrics(twin, strategy, recorder), saver.curve
            metrics = _reduce(workers)
            if LAUNCHER_VARIABLE in os.environ:  # which knows more, and logs it
                del metrics["exit_seconds"]
            else:
                metrics |= _own_goodput(recorder, time.perf_counter() - born)
            run.log_metrics(metrics, {SLOWEST_WORKER_TAG: json.dumps(_slowest(workers))})
            run.log_json(WORKERS_NAME, [_describe(rank, each) for rank, each in enumerate(workers)])
            run.log_series("train_loss", losses)
            if worker.is_chief:
                result = {"run_id": run.run_id, "metrics": metrics, "train_loss": losses}
                write_whole(output / RESULT_NAME, json.dumps(result))
                events.emit("result", run_id=run.run_id, metrics=metrics)
            stack.close()
    last_phases = _phases(recorder.metrics, ("report_seconds", "exit_seconds"))
    events.emit("ended", phases=last_phases, spent=recorder.spent())


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
    model = twin.train(config, workload, strategy, worker, Recorder(), Unsaved(), transformed)
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
    model = twin.train(config, probed(workload, probe), strategy, worker, recorder, Unsaved())
    evaluation = twin.evaluate(config, workload, model, None)
    losses = twin.gather_over_workers(strategy, np.array(recorder.losses)).mean(axis=0)
    if worker.is_chief:
        written: dict[str, Any] = {
            "loss": losses,
            "gradient_norm": np.array(recorder.gradient_norms),
            "weight_norm": np.array(recorder.weight_norms),
            **{f"weights/{name}": values for name, values in twin.weights_of(model).items()},
            **{f"metric/{name}": np.array(value) for name, value in evaluation.items()},
        }
        np.savez(output / TRACE_NAME, **written)


def run_params(
    twin: Twin, config: Config, manifest: Manifest, workload: Workload, cell: Cell
) -> dict[str, object]:
    """The parameters of a cell's run: the cell's, its software's and its model's."""
    return {
        **cell_params(config, manifest, cell),
        **twin.describe_software(),
        "python_version": platform.python_version(),
        "parameters": sum(value.size for value in workload.initial_weights(0).values()),
        "training_flops_per_example": workload.training_flops_per_example(),
    }


def _gather_metrics(twin: Twin, strategy: Any, recorder: Recorder) -> list[dict[str, float]]:
    """Every worker's metrics by rank, on every worker; NaN for what its host does not tell."""
    mine = {**dict.fromkeys(_HOST_METRICS, math.nan), **recorder.finish()}
    names = sorted(mine)
    gathered = twin.gather_over_workers(strategy, np.array([mine[name] for name in names]))
    return [dict(zip(names, row, strict=True)) for row in gathered.tolist()]


def _reduce(workers: list[dict[str, float]]) -> dict[str, float]:
    """The run's metrics; of what a host does not tell the run's sum is not known either."""
    metrics = reduce_over_workers(workers)
    unknown = [name for name in _HOST_METRICS if math.isnan(metrics[name])]
    return {name: value for name, value in metrics.items() if name not in unknown}


def _slowest(workers: list[dict[str, float]]) -> dict[str, Any]:
    """The worker whose first step ended last, and what it did until then."""
    times = [each["time_to_first_step_seconds"] for each in workers]
    rank = times.index(max(times))
    return {"rank": rank, "phases": _phases(workers[rank], _UNTIL_THE_FIRST_STEP)}


def _describe(rank: int, metrics: dict[str, float]) -> dict[str, Any]:
    kept = {name: metrics[name] for name in ("peak_memory_bytes", "cpu_seconds")}
    return {"rank": rank, "phases": _phases(metrics, PHASES), **kept}


def _phases(metrics: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    return {name: metrics[name] for name in names if name in metrics}


def _own_goodput(recorder: Recorder, wall_seconds: float) -> dict[str, float]:
    """The ledger of a worker that is its run's only witness, from its start until now."""
    return {"wall_seconds": wall_seconds, **goodput_metrics(recorder.spent(), wall_seconds)}
