"""A worker's part in measuring what a cell's step consists of, the same for both frameworks.

Two programs, each in processes of its own. ``run_alone``: as many workers as the cell has train at
the same time, each as if it were the only one. ``run_together``: they do nothing but all-reduce.
In one process they would disturb each other: a model that normalises over all workers does so as
soon as there is a process group.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.ingest.dataset import Dataset
from pipelines.metrics import reduce_over_workers
from pipelines.recorder import Recorder
from pipelines.run_folder import RESULT_NAME
from pipelines.saver import Unsaved
from pipelines.strategies import ALONE, DATA_PARALLEL, Framework
from pipelines.twin import Twin
from pipelines.whole_file import write_whole
from pipelines.worker import Worker
from pipelines.worker_run import run_params
from pipelines.workloads import get_workload

__all__ = ["ALL_REDUCE_NAME", "Variant", "run_alone", "run_together"]

Variant = Literal["alone", "together"]

ALL_REDUCE_NAME = "all_reduce.json"
"""What ``run_together`` leaves: bytes -> seconds."""

_OF_OTHERS = ("TF_CONFIG", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which a framework would see more workers than one; ``LOCAL_RANK`` says which GPU is
this worker's, and stays."""

_SMALLEST_BYTES, _FACTOR = 2**10, 8
_LARGEST_BYTES = 2**22, 2**28
"""Between these: the gradient's size. From some MiB on, time grows with the size alone."""
_BYTES_PER_ROUND = 2**24
_MOST_REPEATS, _ROUNDS = 20, 7
_POLL_SECONDS = 0.005


def run_alone(
    twin: Twin,
    config: Config,
    *,
    output: Path,
    scaling: str,
    repeat: int,
    study_id: str,
    transformed: Path | None = None,
) -> None:
    """Train without others, then compute without even the training loop; the others do likewise.

    Rank 0 logs the metrics, of which the slowest worker's count, and writes ``result.json`` to
    ``output``. The workers meet by files there.
    """
    worker = Worker.from_environment()
    for variable in _OF_OTHERS:
        os.environ.pop(variable, None)
    dataset = Dataset.open(config.dataset_dir)
    workload = get_workload(config, dataset.manifest)
    strategy_name = config.strategy(twin.framework)
    cell = Cell(twin.framework, strategy_name, worker.workers, scaling, repeat)
    params = run_params(twin, config, dataset.manifest, workload, cell)
    warmup_steps = config.training.warmup_steps
    timed_steps = config.training.steps - warmup_steps
    from pipelines.tracking import tracked_run

    # Tracked from all ranks, as the cell is: its system metrics take time too.
    with tracked_run(config, worker, cell, study_id, params, output) as run:
        run.log_params(params)
        run.log_config()
        run.log_dataset(dataset)
        alone = _with_strategy(config, twin.framework, ALONE[twin.framework])
        strategy = twin.build_strategy(alone, Worker())
        recorder, lone = Recorder(), Worker()
        _meet(output, "train", worker)
        twin.train(alone, workload, strategy, lone, recorder, Unsaved(), transformed)
        found = _lone_metrics(recorder, timed_steps)
        build_compute = import_module(f"{twin.framework}_pipeline.anatomy").build_compute
        compute = build_compute(_still(alone), workload, strategy, transformed)
        compute(1)  # traces, compiles
        _meet(output, "compute", worker)
        compute(warmup_steps)
        found["compute_step_seconds"] = _seconds_of(lambda: compute(timed_steps)) / timed_steps
        metrics = reduce_over_workers(_exchange(output, "metrics", worker, found))
        run.log_metrics(metrics)
        if worker.is_chief:
            result = {"run_id": run.run_id, "metrics": metrics}
            write_whole(output / RESULT_NAME, json.dumps(result))


def run_together(twin: Twin, config: Config, output: Path) -> None:
    """Time all-reduces among the workers that the environment describes.

    Rank 0 writes ``all_reduce.json`` to ``output``: of every size the median round's seconds per
    all-reduce, on the worker for which it took longest.
    """
    worker = Worker.from_environment()
    workload = get_workload(config, Dataset.open(config.dataset_dir).manifest)
    parameters = sum(value.size for value in workload.initial_weights(0).values())
    together = _with_strategy(config, twin.framework, DATA_PARALLEL[twin.framework])
    strategy = twin.build_strategy(together, worker)
    build_all_reduce = import_module(f"{twin.framework}_pipeline.anatomy").build_all_reduce
    sizes = _message_sizes(4 * parameters)
    mine = []
    for size in sizes:
        all_reduce = build_all_reduce(strategy, size // 4)
        repeats = min(max(_BYTES_PER_ROUND // size, 1), _MOST_REPEATS)
        all_reduce(repeats)  # traces; and opens the connections
        rounds = [_seconds_of(lambda: all_reduce(repeats)) for _ in range(_ROUNDS)]  # noqa: B023
        mine.append(statistics.median(rounds) / repeats)
    slowest = twin.gather_over_workers(strategy, np.array(mine)).max(axis=0).tolist()
    if worker.is_chief:
        write_whole(output / ALL_REDUCE_NAME, json.dumps(dict(zip(sizes, slowest, strict=True))))


def _lone_metrics(recorder: Recorder, timed_steps: int) -> dict[str, float]:
    found = {"lone_step_seconds": recorder.metrics["step_seconds"]}
    if "data_wait_seconds" in recorder.metrics:
        found["lone_data_wait_seconds"] = recorder.metrics["data_wait_seconds"] / timed_steps
    return found


def _with_strategy(config: Config, framework: Framework, strategy: str) -> Config:
    section = getattr(config, framework).model_copy(update={"strategy": strategy})
    return config.model_copy(update={framework: section})


def _still(config: Config) -> Config:
    """The same work at a learning rate of 0.

    Hundreds of steps on one batch would end in gradients too small for normal floating-point
    numbers, with which CPUs compute many times more slowly, or in none at all.
    """
    training = config.training
    optimizer = training.optimizer.model_copy(update={"learning_rate": 0.0})
    still = training.model_copy(update={"optimizer": optimizer})
    return config.model_copy(update={"training": still})


def _message_sizes(gradient_bytes: int) -> list[int]:
    """Bytes of the vectors, by factors of 8 up to the gradient's, within bounds."""
    least, most = _LARGEST_BYTES
    largest = min(max(gradient_bytes, least), most)
    sizes = []
    size = _SMALLEST_BYTES
    while size < largest:
        sizes.append(size)
        size *= _FACTOR
    return [*sizes, largest]


def _seconds_of(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _meet(folder: Path, name: str, worker: Worker) -> None:
    """Wait until all workers are here."""
    _exchange(folder, name, worker, {})


def _exchange(
    folder: Path, name: str, worker: Worker, mine: dict[str, float]
) -> list[dict[str, float]]:
    """Every worker's values, by rank; if a worker dies, the launcher ends those that wait."""
    files = [folder / f"{name}{rank}.json" for rank in range(worker.workers)]
    write_whole(files[worker.rank], json.dumps(mine))
    while not all(file.exists() for file in files):
        time.sleep(_POLL_SECONDS)
    return [json.loads(file.read_text()) for file in files]
