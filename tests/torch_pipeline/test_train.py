import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines.cell import Cell
from pipelines.config import Config, load_config
from pipelines.errors import InputError, WorkError
from pipelines.goodput import LEDGER
from pipelines.ingest import Dataset
from pipelines.ingest.reader import SharedBatches
from pipelines.metrics import METRICS, PHASES
from pipelines.run_folder import RESULT_NAME
from pipelines.runs import SLOWEST_WORKER_TAG
from pipelines.strategies import Framework
from pipelines.tracking import prepare_store
from pipelines.training_run import Listener, begin_run
from pipelines.worker import Worker
from pipelines.worker_run import WORKERS_NAME
from pipelines.workloads import Vision

STEPS, TIMED_STEPS, GLOBAL_BATCH = 12, 10, 32
WORKERS = pytest.mark.parametrize("workers", [1, 2])
Shrunk = Callable[..., Config]


@dataclass(frozen=True)
class Trained:
    """A training run that has ended, and what it left behind."""

    config: Config
    metrics: dict[str, float]
    result: dict[str, Any]
    run: Run


@dataclass(frozen=True)
class Killed:
    """A training run that ended early."""

    config: Config
    workers: dict[int, psutil.Process]
    message: str


def train_in_processes(
    config: Config, dataset: Dataset, cell: Cell, on_step: Callable[[int], None] = lambda step: None
) -> Trained:
    prepare_store(config)
    run_id, metrics = begin_run(
        config,
        dataset,
        cell,
        "cell",
        "study-1",
        config.output / "cells",
        Listener(lambda _cell, step, _steps: on_step(step)),
    )
    result = json.loads((config.output / "cells" / cell.slug / RESULT_NAME).read_text())
    return Trained(config, metrics, result, MlflowClient(config.tracking_uri).get_run(run_id))


@pytest.fixture(scope="module")
def runs(
    framework: Framework,
    load_shrunk: Shrunk,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, Trained]:
    """One worker, and two that share the same global batch."""
    trained = {}
    for workers in (1, 2):
        config = load_shrunk(
            f"output={tmp_path_factory.mktemp('study')}",
            f"data.output={dataset.folder}",
            f"training.batch_size_per_worker={GLOBAL_BATCH // workers}",
        )
        cell = Cell(framework, config.strategy(framework), workers)
        trained[workers] = train_in_processes(config, dataset, cell)
    return trained


@WORKERS
def test_a_run_measures_exactly_the_metrics_of_the_table(
    runs: dict[int, Trained], workers: int
) -> None:
    judged_and_timed = {"eval_loss", "eval_accuracy", "examples_per_second", "step_seconds"}
    resources = {"data_wait_seconds", "peak_memory_bytes", "cpu_seconds", "network_bytes"}
    seen_by_workers = {*PHASES, *judged_and_timed, *resources, "time_to_first_step_seconds"}
    operation = {"processes", "listening_ports", "environment_variables"}
    seen_by_launcher = {*LEDGER, "goodput_share", *operation, "wall_seconds"}
    seen_by_launcher |= {"report_seconds", "exit_seconds"}
    some_machines = {"energy_joules"}

    measured = set(runs[workers].result["metrics"]) - some_machines
    assert measured == seen_by_workers - seen_by_launcher
    measured = set(runs[workers].metrics) - some_machines
    assert measured == seen_by_workers | seen_by_launcher <= set(METRICS)


@WORKERS
def test_the_first_loss_is_the_initial_networks_on_the_first_global_batch(
    runs: dict[int, Trained],
    workload: Vision,
    reference_logits: Callable[[Vision, int, np.ndarray], np.ndarray],
    reference_losses: Callable[[np.ndarray, np.ndarray], np.ndarray],
    workers: int,
) -> None:
    features, labels = next(iter(SharedBatches(runs[1].config, workload, "train", Worker())))
    losses = reference_losses(reference_logits(workload, 0, features["image"]), labels)

    assert len(losses) == GLOBAL_BATCH
    assert runs[workers].result["train_loss"][0] == pytest.approx(losses.mean(), abs=1e-5)


def test_two_workers_train_as_one_with_the_same_global_batch(runs: dict[int, Trained]) -> None:
    alone, together = (np.array(runs[workers].result["train_loss"]) for workers in (1, 2))

    assert alone.shape == (STEPS,)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    for name in ("eval_loss", "eval_accuracy"):
        assert runs[2].metrics[name] == pytest.approx(runs[1].metrics[name], abs=1e-4)


def test_training_lowers_the_loss(runs: dict[int, Trained]) -> None:
    losses = runs[1].result["train_loss"]

    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert runs[1].metrics["eval_loss"] < losses[0]


@WORKERS
def test_the_figures_of_speed_agree_with_each_other(runs: dict[int, Trained], workers: int) -> None:
    metrics = runs[workers].metrics
    seconds = metrics["train_seconds"]

    assert metrics["step_seconds"] == pytest.approx(seconds / TIMED_STEPS)
    assert metrics["examples_per_second"] == pytest.approx(TIMED_STEPS * GLOBAL_BATCH / seconds)
    assert 0 < metrics["data_wait_seconds"] < seconds


@WORKERS
def test_the_phases_and_the_ledger_add_up_to_the_runs_wall_clock(
    runs: dict[int, Trained], workers: int
) -> None:
    metrics = runs[workers].metrics
    phases, ledger = ({name: metrics[name] for name in names} for names in (PHASES, LEDGER))
    within_a_percent = pytest.approx(metrics["wall_seconds"], rel=0.01)

    assert sum(phases.values()) == within_a_percent
    assert sum(ledger.values()) == within_a_percent
    assert phases.pop("checkpoint_seconds") == 0  # nothing was to be saved
    assert min(phases.values()) > 0
    assert [name for name, seconds in ledger.items() if seconds <= 0] == [
        "badput_checkpoint_save_seconds",
        "badput_wasted_steps_seconds",
    ]


def test_the_worker_whose_first_step_ended_last_is_told_beside_what_each_did(
    runs: dict[int, Trained],
) -> None:
    client, run = MlflowClient(runs[2].config.tracking_uri), runs[2].run
    text = client.download_artifacts(run.info.run_id, WORKERS_NAME)
    first, second = json.loads(Path(text).read_text())
    slowest = json.loads(run.data.tags[SLOWEST_WORKER_TAG])

    assert (first["rank"], second["rank"]) == (0, 1)
    phases = [name for name in PHASES if name != "report_seconds"]
    assert list(first["phases"]) == list(second["phases"]) == phases
    assert first["cpu_seconds"] + second["cpu_seconds"] == pytest.approx(
        runs[2].metrics["cpu_seconds"]
    )
    until_then = PHASES[: PHASES.index("first_step_seconds") + 1]
    theirs = (first, second)[slowest["rank"]]["phases"]
    assert slowest["phases"] == {name: theirs[name] for name in until_then}
    assert sum(slowest["phases"].values()) == pytest.approx(
        runs[2].metrics["time_to_first_step_seconds"], rel=0.01
    )


def test_workers_that_exchange_gradients_send_them_over_the_network(
    runs: dict[int, Trained],
) -> None:
    parameters = int(runs[2].run.data.params["parameters"])

    assert runs[2].metrics["network_bytes"] > TIMED_STEPS * parameters * 4
    assert runs[2].metrics["processes"] >= 2
    assert runs[2].metrics["listening_ports"] >= 1


def test_two_workers_processor_times_add_up_and_their_memories_do_not(
    runs: dict[int, Trained],
) -> None:
    ratio = {
        name: runs[2].metrics[name] / runs[1].metrics[name]
        for name in ("cpu_seconds", "peak_memory_bytes")
    }

    assert ratio["cpu_seconds"] > 1.4
    assert ratio["peak_memory_bytes"] < 1.4


@WORKERS
def test_the_tracked_run_is_finished_and_says_what_was_run(
    runs: dict[int, Trained], framework: Framework, dataset: Dataset, workers: int
) -> None:
    trained = runs[workers]
    params = trained.run.data.params

    assert trained.run.info.status == "FINISHED"
    assert trained.run.info.run_id == trained.result["run_id"]
    expected = {
        "framework": framework,
        "strategy": trained.config.strategy(framework),
        "workers": str(workers),
        "batch_size_per_worker": str(GLOBAL_BATCH // workers),
        "global_batch_size": str(GLOBAL_BATCH),
        "steps": str(STEPS),
        "parameters": "19562",
        "dataset_fingerprint": dataset.manifest.fingerprint,
        "config_sha256": trained.config.digest(),
        "software_build": "cpu",
    }
    assert expected.items() <= params.items()
    assert params["framework_version"].startswith("torch 2.")


@WORKERS
def test_the_tracked_run_holds_the_metrics_and_the_loss_of_every_step(
    runs: dict[int, Trained], workers: int
) -> None:
    trained = runs[workers]
    client = MlflowClient(trained.config.tracking_uri)
    history = client.get_metric_history(trained.run.info.run_id, "train_loss")
    tracked = {
        name: value
        for name, value in trained.run.data.metrics.items()
        if not name.startswith("system/")
    }

    points = sorted((point.step, point.value) for point in history)
    assert points == list(enumerate(trained.result["train_loss"], start=1))
    assert tracked == {**trained.metrics, "train_loss": trained.result["train_loss"][-1]}


def test_the_tracked_run_names_the_dataset_by_its_fingerprint(
    runs: dict[int, Trained], dataset: Dataset
) -> None:
    (used,) = runs[2].run.inputs.dataset_inputs

    assert used.dataset.name == "digits"
    assert len(used.dataset.digest) >= 32
    assert dataset.manifest.fingerprint.startswith(used.dataset.digest)


def test_the_tracked_run_keeps_the_resolved_config(
    runs: dict[int, Trained], tmp_path: Path
) -> None:
    client = MlflowClient(runs[2].config.tracking_uri)
    kept = client.download_artifacts(runs[2].run.info.run_id, "config.yaml", str(tmp_path))

    assert load_config(Path(kept)) == runs[2].config


def test_native_examples_are_transformed_once_and_trained_on(
    framework: Framework, load_shrunk: Shrunk, dataset: Dataset, tmp_path: Path
) -> None:
    config = load_shrunk(
        f"output={tmp_path}", f"data.output={dataset.folder}", "data.reader=native"
    )

    trained = train_in_processes(config, dataset, Cell(framework, config.strategy(framework), 2))

    losses = trained.result["train_loss"]
    assert len(losses) == STEPS
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert trained.run.data.params["reader"] == "native"
    (folder,) = (tmp_path / "transformed").iterdir()
    assert folder.name.startswith(f"{framework}-")
    assert (folder / "transform_fn").is_dir()


def test_torchrun_starts_workers_that_train_together(
    load_shrunk: Shrunk, dataset: Dataset, runs: dict[int, Trained], tmp_path: Path
) -> None:
    config = load_shrunk(f"output={tmp_path}", f"data.output={dataset.folder}")
    prepare_store(config)
    path = config.dump(tmp_path / "config.yaml")
    torchrun = Path(sys.executable).with_name("torchrun")
    worker = ["-m", "torch_pipeline", "train", f"--config={path}", f"--output={tmp_path}"]

    subprocess.run(
        [torchrun, "--standalone", "--nproc-per-node=2", *worker],
        check=True,
        env={**os.environ, **config.child_variables},
    )

    result = json.loads((tmp_path / RESULT_NAME).read_text())
    np.testing.assert_allclose(
        result["train_loss"], runs[2].result["train_loss"], rtol=1e-6, atol=0
    )
    metrics = result["metrics"]
    ledger = sum(metrics[name] for name in LEDGER)
    assert ledger == pytest.approx(metrics["wall_seconds"], rel=0.01)
    (run,) = tracked_runs(config)
    assert run.info.status == "FINISHED"
    assert run.data.params["strategy"] == "ddp"
    assert run.data.params["workers"] == "2"


def test_an_altered_shard_fails_the_run_and_is_named(
    framework: Framework, load_shrunk: Shrunk, dataset: Dataset, tmp_path: Path
) -> None:
    altered = Dataset.open(shutil.copytree(dataset.folder, tmp_path / "altered"))
    shard = altered.folder / altered.shards("train")[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    config = load_shrunk(f"output={tmp_path / 'out'}", f"data.output={altered.folder}")

    with pytest.raises(InputError) as refused:
        train_in_processes(config, altered, Cell(framework, config.strategy(framework), 1))

    assert str(refused.value).startswith(f"{shard}: shard was altered")
    assert [run.info.status for run in tracked_runs(config)] == ["FAILED"]


@pytest.fixture(scope="module")
def killed(
    framework: Framework,
    load_shrunk: Shrunk,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> Killed:
    """Two workers in a long training, of which the second was killed."""
    config = load_shrunk(
        f"output={tmp_path_factory.mktemp('killed')}",
        f"data.output={dataset.folder}",
        "training.steps=100000",
    )
    workers: dict[int, psutil.Process] = {}

    def kill_the_second(step: int) -> None:
        if not workers and step and len(ranks_with_system_metrics(config)) == 2:
            workers.update(worker_processes(framework))
            workers[1].kill()

    with pytest.raises(WorkError) as failure:
        train_in_processes(
            config, dataset, Cell(framework, config.strategy(framework), 2), kill_the_second
        )
    return Killed(config, workers, str(failure.value))


def test_a_killed_worker_ends_the_others_and_fails_the_run(killed: Killed) -> None:
    (run,) = tracked_runs(killed.config)

    assert sorted(killed.workers) == [0, 1]
    assert not any(worker.is_running() for worker in killed.workers.values())
    assert re.match(r"worker [01] ended with ", killed.message)
    assert run.info.status == "FAILED"
    assert run.info.end_time


def test_every_workers_system_metrics_carry_its_rank(killed: Killed) -> None:
    assert ranks_with_system_metrics(killed.config) == {"rank_0", "rank_1"}


def ranks_with_system_metrics(config: Config) -> set[str]:
    (run,) = tracked_runs(config)
    names = [name.split("/") for name in run.data.metrics if name.startswith("system/")]
    return {rank for _, rank, *_ in names}


def worker_processes(framework: Framework) -> Iterator[tuple[int, psutil.Process]]:
    """Rank and process of every worker that this test process started."""
    for child in psutil.Process(os.getpid()).children():
        if f"{framework}_pipeline" in child.cmdline():
            yield Worker.from_environment(child.environ()).rank, child


def tracked_runs(config: Config) -> list[Run]:
    client = MlflowClient(config.tracking_uri)
    experiment = client.get_experiment_by_name(config.name)
    return client.search_runs([experiment.experiment_id])
