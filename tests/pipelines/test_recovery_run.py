import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import tracking
from pipelines.config import Config, load_config
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.ingest import Dataset
from pipelines.recovery_run import measure_recovery, recovery_cell
from pipelines.run_folder import CONFIG_NAME
from pipelines.runs import FAULT_TAG, RunRecord
from pipelines.training_run import Listener

STUDY = "20250601T120000Z"

# It saves after its second and its fourth step, and is one step further when it is killed.
SAVES = """
if attempt == 1:
    for step in (2, 4):
        if rank == 0:
            (output / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
            emit(event="step", step=step + 1, steps=12)
        time.sleep(0.2)
    time.sleep(60)
if rank == 0:
    emit(event="resumed", step=4)
    emit(event="step", step=5, steps=12)
    finish(eval_accuracy=0.5)
"""

Write = Callable[..., None]


def measured(
    config: Config, dataset: Dataset, listener: Listener | None = None
) -> tuple[RunRecord, dict[str, float]]:
    folder = config.output / "studies" / STUDY
    run_id, metrics = measure_recovery(
        config, dataset, "torch", STUDY, folder, listener or Listener()
    )
    [run] = [run for run in tracking.read_runs(config) if run.run_id == run_id]
    return run, metrics


@pytest.mark.parametrize(("workers", "killed"), [("[1, 2]", 1), ("[1]", 0)])
def test_a_worker_is_killed_between_two_checkpoints_and_the_run_goes_on(
    write_worker: Write,
    configure: Callable[..., Config],
    digits: Dataset,
    workers: str,
    killed: int,
) -> None:
    config = configure(f"study.workers={workers}")
    write_worker(SAVES, "torch")
    notes: list[str] = []

    run, metrics = measured(config, digits, Listener(on_note=notes.append))

    assert (run.kind, run.status) == ("recovery", "FINISHED")
    assert run.name == f"torch ddp x{killed + 1} recovery"
    assert run.tags[FAULT_TAG] == f"kill -9 of worker {killed}"
    assert f"worker {killed} ended with SIGKILL" in notes[0]
    assert metrics["eval_accuracy"] == 0.5  # the worker's own, which it logs itself
    kept = {"wall_seconds", "restarts", "lost_steps", "recovery_seconds", "notice_seconds"}
    kept |= {"processes", "listening_ports", "environment_variables"}
    assert run.metrics == {name: metrics[name] for name in kept}
    assert (metrics["restarts"], metrics["lost_steps"]) == (1, 1)
    assert metrics["notice_seconds"] > 0
    assert metrics["notice_seconds"] + metrics["recovery_seconds"] < metrics["wall_seconds"]


def test_what_is_trained_is_short_and_is_saved_by_steps_alone(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure(
        "training.steps=500", "training.warmup_steps=300",
        "checkpoint.every_minutes=1", "checkpoint.keep=1",
    )  # fmt: skip
    write_worker(SAVES, "torch")

    run, _ = measured(config, digits)

    (written,) = config.output.glob(f"studies/{STUDY}/*-recovery/*/{CONFIG_NAME}")
    own = load_config(written)
    assert (own.training.steps, own.training.warmup_steps) == (120, 119)
    assert (own.checkpoint.every_steps, own.checkpoint.every_minutes) == (20, None)
    assert own.checkpoint.keep == 2  # or the first would be gone when the second is waited for
    assert run.params["steps"] == "120"


def test_the_run_is_the_studys_first_strategy_on_its_most_workers(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart(
        "study.workers=[2, 4, 1]", "study.scaling=[strong, weak]", "study.global_batch_size=64",
        "study.strategies.torch=[fsdp, ddp]",
    )  # fmt: skip

    cell = recovery_cell(config, "torch")

    assert (cell.strategy, cell.workers, cell.scaling) == ("fsdp", 4, "strong")


def test_a_run_that_ends_before_its_worker_can_be_killed_is_no_measurement(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish()", "torch")

    with pytest.raises(WorkError, match="no worker of torch ddp x2 could be killed before"):
        measured(config, digits)

    [run] = tracking.read_runs(config)
    assert FAULT_TAG not in run.tags
    assert "notice_seconds" not in run.metrics


def test_a_run_that_does_not_get_over_it_fails(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(SAVES.replace("if rank == 0:\n    emit", "sys.exit(3)\nif rank == 0:\n    emit"))

    with pytest.raises(WorkError, match="exit code 3"):
        measured(config, digits)

    [run] = tracking.read_runs(config)
    assert run.status == "FAILED"


def test_a_run_that_is_asked_to_end_meanwhile_ends(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("emit(event='step', step=1, steps=12); time.sleep(60)", "torch")

    def ask(cell: object, step: int, steps: int) -> None:
        if step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError):
        measured(config, digits, Listener(on_progress=ask))

    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_no_worker_is_killed_whose_device_might_stay_taken(
    configure: Callable[..., Config], digits: Dataset, tmp_path: Path
) -> None:
    config = configure("tf.strategy=tpu")

    with pytest.raises(InputError, match=r"^tf\.strategy: "):
        measure_recovery(config, digits, "tf", STUDY, tmp_path / "study", Listener())

    assert not (tmp_path / "study").exists()
