import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.cell import Cell
from pipelines.checkpoints import CHECKPOINTS_FOLDER, Checkpoints, step_of
from pipelines.config import Config
from pipelines.errors import DivergedError, PreemptedError
from pipelines.ingest import Dataset
from pipelines.ingest.reader import SharedBatches
from pipelines.run_folder import DIVERGED_NAME, RESULT_NAME
from pipelines.runs import PREEMPTED_TAG
from pipelines.strategies import Framework
from pipelines.tracking import prepare_store
from pipelines.training_run import Listener, begin_run, resume_run
from pipelines.worker import Worker
from pipelines.workloads import Vision

Shrunk = Callable[..., Config]
Begin = Callable[..., tuple[Config, Path]]

STRATEGIES = pytest.mark.parametrize(
    ("strategy", "workers"), [("one_device", 1), ("mirrored", 2), ("multi_worker_mirrored", 2)]
)


@pytest.fixture
def begin(framework: Framework, load_shrunk: Shrunk, dataset: Dataset, tmp_path: Path) -> Begin:
    """Train, saving after every third step; the configuration, and the run's folder."""

    def run(
        strategy: str,
        workers: int,
        *overrides: str,
        on_step: Callable[[int], None] = lambda step: None,
    ) -> tuple[Config, Path]:
        config = load_shrunk(
            f"output={tmp_path}",
            f"data.output={dataset.folder}",
            f"{framework}.strategy={strategy}",
            f"study.workers=[{workers}]",
            "checkpoint.every_steps=3",
            *overrides,
        )
        prepare_store(config)
        cell = Cell(framework, strategy, workers)
        listener = Listener(lambda _cell, step, _steps: on_step(step))
        begin_run(config, dataset, cell, "train", "study-1", tmp_path / "runs", listener)
        return config, tmp_path / "runs" / cell.slug

    return run


def losses_of(folder: Path) -> list[float]:
    return json.loads((folder / RESULT_NAME).read_text())["train_loss"]


def go_back(folder: Path, step: int) -> None:
    """Leave the run as it was when the checkpoint of a step was its newest."""
    (folder / RESULT_NAME).unlink()
    for checkpoint in (folder / CHECKPOINTS_FOLDER).glob("step-*"):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


@pytest.mark.long
@STRATEGIES
def test_a_run_that_goes_on_repeats_the_unbroken_runs_losses_bit_for_bit(
    begin: Begin, dataset: Dataset, strategy: str, workers: int
) -> None:
    config, folder = begin(
        strategy, workers, "training.gradient_accumulation=2", "training.schedule.name=cosine"
    )
    unbroken = losses_of(folder)
    go_back(folder, 6)
    notes: list[str] = []

    run_id, metrics = resume_run(config, dataset, folder, workers, Listener(on_note=notes.append))

    assert notes == ["going on from step 6"]
    assert losses_of(folder) == unbroken
    assert metrics["restore_seconds"] > 0
    client = MlflowClient(config.tracking_uri)
    points = client.get_metric_history(run_id, "train_loss")
    assert sorted((point.step, point.value) for point in points) == [*enumerate(unbroken, start=1)]
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_saving_while_training_goes_on_changes_no_loss(
    begin: Begin, dataset: Dataset, framework: Framework, workers: int
) -> None:
    config, folder = begin(
        "multi_worker_mirrored", workers, "checkpoint.asynchronous=true", "checkpoint.every_steps=2"
    )
    unbroken = losses_of(folder)
    newest, damages = Checkpoints(folder / CHECKPOINTS_FOLDER, keep=3).newest()
    kept = sorted(path.name for path in (folder / CHECKPOINTS_FOLDER).glob("step-*"))
    go_back(folder, 8)

    resume_run(config, dataset, folder, workers, Listener())

    assert kept == ["step-000006", "step-000008", "step-000010"]
    assert newest is not None
    assert (newest.step, newest.losses, damages) == (10, unbroken[:10], [])
    assert losses_of(folder) == unbroken


def test_a_run_that_was_asked_to_end_says_so_in_its_tags_and_tells_where_it_is(
    begin: Begin, framework: Framework, tmp_path: Path
) -> None:
    def ask_to_end(step: int) -> None:
        if step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError) as ended:
        begin("one_device", 1, "training.steps=100000", on_step=ask_to_end)

    (folder,) = (tmp_path / "runs").iterdir()
    newest, _ = Checkpoints(folder / CHECKPOINTS_FOLDER, keep=3).newest()
    assert newest is not None
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("quickstart").experiment_id])
    assert run.data.tags[PREEMPTED_TAG] == str(newest.step)
    assert run.info.status == "KILLED"
    logged = client.get_metric_history(run.info.run_id, "train_loss")
    assert [point.value for point in sorted(logged, key=lambda at: at.step)] == newest.losses
    assert f"saved after step {newest.step}" in str(ended.value)
    assert f"`tandem train {framework} --resume {folder}`" in str(ended.value)


def test_a_loss_that_is_not_finite_ends_the_run_and_its_examples_are_written_down(
    begin: Begin, dataset: Dataset, workload: Vision, load_shrunk: Shrunk, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match="the loss was not finite at step"):
        begin("multi_worker_mirrored", 2, "training.optimizer={name: sgd, learning_rate: 1.0e+30}")

    (folder,) = (tmp_path / "runs").iterdir()
    found = json.loads((folder / DIVERGED_NAME).read_text())
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("quickstart").experiment_id])
    points = client.get_metric_history(run.info.run_id, "train_loss")
    assert run.info.status == "FAILED"
    assert max(point.step for point in points) == found["step"] > 1
    whole = SharedBatches(
        load_shrunk(f"data.output={dataset.folder}"), workload, "train", Worker(replicas=2)
    )
    assert found["rows"] == whole.rows(found["step"] - 1)
    assert len(found["rows"]) == 32
    assert not list((folder / CHECKPOINTS_FOLDER).glob(f"step-{found['step']:06d}"))


@pytest.mark.long
def test_parameter_servers_go_on_with_the_steps_that_are_left(
    begin: Begin, dataset: Dataset
) -> None:
    config, folder = begin("parameter_server", 2)
    whole = losses_of(folder)
    go_back(folder, 6)

    resume_run(config, dataset, folder, 2, Listener())

    losses = losses_of(folder)
    assert losses[:6] == whole[:6]
    assert len(losses) == 12
    # Updates of two workers come in any order, so only roughly the same.
    assert np.mean(losses[6:]) == pytest.approx(np.mean(whole[6:]), abs=0.3)
