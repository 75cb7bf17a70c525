import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import events, tracking, worker_run
from pipelines.config import Config
from pipelines.errors import DivergedError, InputError
from pipelines.folder_lock import held_alone
from pipelines.goodput import LEDGER
from pipelines.ingest import Dataset
from pipelines.ingest.reader import SharedBatches
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption
from pipelines.recorder import Recorder, StepClock
from pipelines.runs import PREEMPTED_TAG, SLOWEST_WORKER_TAG
from pipelines.worker import Worker
from pipelines.worker_run import WORKERS_NAME, run_worker
from pipelines.workloads import get_workload

STEPS = 12
LOSSES = [1 / step for step in range(1, STEPS + 1)]


class Asked(Preemption):
    """Without a handler, which a thread may not have."""

    def watch(self) -> None:
        pass


class FakeTwin:
    """A framework whose model is the steps that it was trained by, and whose strategy is a rank."""

    framework = "torch"

    def __init__(self, workers: int) -> None:
        self.loss: Callable[[int], float] = lambda step: 1 / step
        self.at_step: Callable[[int, Preemption], None] = lambda step, preemption: None
        self.preemption = Asked()
        self._rows: list[Any] = [None] * workers
        self._barrier = threading.Barrier(workers, timeout=20)

    def describe_software(self) -> dict[str, str]:
        return {"software_build": "cpu"}

    def build_strategy(self, config: Config, worker: Worker) -> int:
        return worker.rank

    def gather_over_workers(self, rank: int, values: np.ndarray) -> np.ndarray:
        self._rows[rank] = values.copy()
        self._barrier.wait()
        everyone = np.stack(self._rows)
        self._barrier.wait()
        return everyone

    def save_state(
        self, folder: Path, rank: int, model: list[int], optimizer: None, *rest: object
    ) -> Callable[[], None]:
        def finish() -> None:
            if rank == 0:
                folder.mkdir(exist_ok=True)
                (folder / "model.json").write_text(json.dumps(model))

        return finish

    def load_state(self, folder: Path, rank: int, model: list[int], *rest: object) -> None:
        model[:] = json.loads((folder / "model.json").read_text())

    def train(
        self,
        config: Config,
        workload: object,
        strategy: int,
        worker: Worker,
        recorder: Recorder,
        keeper: Any,
        transformed: Path | None = None,
    ) -> list[int]:
        clock = StepClock(
            recorder,
            steps=STEPS,
            warmup_steps=2,
            global_batch_size=16,
            fence=lambda: None,
            done=keeper.start,
        )
        model: list[int] = []
        keeper.attach(model, None, clock, lambda: None)
        clock.start()
        for step in range(keeper.start + 1, STEPS + 1):
            model.append(step)
            recorder.losses.append(self.loss(step))
            self.at_step(step, self.preemption)
            clock.step_done()
            if keeper.stop_after(step):
                break
        return model

    def evaluate(self, config: Config, workload: object, model: list[int], *rest: object) -> Any:
        return {"eval_accuracy": float(model == list(range(1, STEPS + 1)))}


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure("checkpoint.every_steps=4")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of all events, of all workers."""
    told: list[str] = []
    monkeypatch.setattr("pipelines.events.emit", lambda event, **details: told.append(event))
    return told


@pytest.fixture
def work(config: Config, output: Path) -> Callable[..., None]:
    def run(twin: FakeTwin) -> None:
        run_worker(
            twin,
            config,
            started=time.perf_counter(),
            preemption=twin.preemption,
            output=output,
            scaling="weak",
            repeat=0,
            study_id="study",
        )

    return run


def asked_to_end(at: int) -> FakeTwin:
    twin = FakeTwin(workers=1)

    def at_step(step: int, preemption: Preemption) -> None:
        preemption.asked = preemption.asked or step == at

    twin.at_step = at_step
    return twin


def history(config: Config, run_id: str) -> list[float]:
    """The training loss of every step, as it was tracked."""
    from mlflow import MlflowClient

    points = MlflowClient(config.tracking_uri).get_metric_history(run_id, "train_loss")
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def test_a_worker_that_is_asked_to_end_leaves_a_run_that_can_go_on_to_its_end(
    work: Callable[..., None], config: Config, digits: Dataset, output: Path, said: list[str]
) -> None:
    work(asked_to_end(at=6))
    [stopped] = tracking.read_runs(config)
    so_far = history(config, stopped.run_id)
    stopped_with = list(said)

    work(FakeTwin(workers=1))

    assert (stopped.status, stopped.tags[PREEMPTED_TAG]) == ("KILLED", "8")
    assert so_far == pytest.approx(LOSSES[:8])
    assert stopped_with[-1] == "preempted"
    [ended] = tracking.read_runs(config)
    assert (ended.run_id, ended.status) == (stopped.run_id, "FINISHED")
    assert history(config, ended.run_id) == pytest.approx(LOSSES)
    result = json.loads((output / "result.json").read_text())
    assert result["run_id"] == ended.run_id
    assert result["train_loss"] == pytest.approx(LOSSES)
    assert result["metrics"]["eval_accuracy"] == 1  # trained by every step, and once


def test_a_worker_that_still_saves_there_keeps_another_from_its_checkpoints_and_its_run(
    work: Callable[..., None],
    config: Config,
    digits: Dataset,
    output: Path,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work(asked_to_end(at=6))
    saved = sorted(each.name for each in (output / "checkpoints").glob("step-*"))
    monkeypatch.setattr(worker_run, "_PATIENCE_SECONDS", 0)

    with (
        held_alone(output / "checkpoints", "give up"),
        pytest.raises(InputError, match="checkpoints: another process is working there; wait"),
    ):
        work(FakeTwin(workers=1))

    assert sorted(each.name for each in (output / "checkpoints").glob("step-*")) == saved
    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_a_worker_without_our_launcher_logs_a_ledger_and_a_wall_clock_of_its_own(
    work: Callable[..., None], output: Path, digits: Dataset, said: list[str]
) -> None:
    work(FakeTwin(workers=1))

    metrics = json.loads((output / "result.json").read_text())["metrics"]
    ledger = sum(metrics[name] for name in LEDGER)
    assert ledger == pytest.approx(metrics["wall_seconds"], rel=0.01)
    assert said[-1] == "ended"


def test_a_worker_leaves_the_ledger_to_its_launcher(
    work: Callable[..., None],
    output: Path,
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(LAUNCHER_VARIABLE, "1")

    work(FakeTwin(workers=1))

    metrics = json.loads((output / "result.json").read_text())["metrics"]
    assert not set(metrics) & {*LEDGER, "wall_seconds", "report_seconds", "exit_seconds"}
    last = events.parse(capsys.readouterr().out.splitlines()[-1])
    assert last is not None
    assert last["event"] == "ended"
    assert set(last["phases"]) == {"report_seconds", "exit_seconds"}
    assert last["spent"]["tracking"] > 0


def test_the_slowest_of_several_workers_is_told(
    work: Callable[..., None],
    config: Config,
    digits: Dataset,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local, twin = threading.local(), FakeTwin(workers=2)

    def slow(step: int, preemption: Preemption) -> None:
        if (local.rank, step) == (1, 1):
            time.sleep(0.2)

    twin.at_step = slow
    monkeypatch.setattr(Worker, "from_environment", lambda replicas: Worker(local.rank, 2))
    run_id = tracking.create_run(config, "a run", "train", "study", {})
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, run_id)

    def work_as(rank: int) -> None:
        local.rank = rank
        work(twin)

    other = threading.Thread(target=work_as, args=(1,))
    other.start()
    work_as(0)
    other.join()

    [run] = tracking.read_runs(config)
    slowest = json.loads(run.tags[SLOWEST_WORKER_TAG])
    assert slowest["rank"] == 1
    assert slowest["phases"]["first_step_seconds"] >= 0.2
    kept = tracking.read_file(config, run_id, WORKERS_NAME)
    assert kept is not None
    workers = json.loads(kept)
    assert [each["rank"] for each in workers] == [0, 1]
    assert workers[1]["phases"]["first_step_seconds"] == slowest["phases"]["first_step_seconds"]
    assert all(each["peak_memory_bytes"] > 0 for each in workers)


def test_a_worker_that_is_started_again_when_all_is_done_is_refused(
    work: Callable[..., None], config: Config, digits: Dataset, output: Path, said: list[str]
) -> None:
    work(FakeTwin(workers=1))

    with pytest.raises(InputError, match="holds a run that has ended"):
        work(FakeTwin(workers=1))

    assert [run.status for run in tracking.read_runs(config)] == ["FINISHED"]


def test_a_run_that_diverges_leaves_the_step_and_the_rows_of_its_examples(
    work: Callable[..., None], config: Config, digits: Dataset, output: Path, said: list[str]
) -> None:
    twin = FakeTwin(workers=1)
    twin.loss = lambda step: math.nan if step >= 7 else 1 / step

    with pytest.raises(DivergedError, match="not finite at step 7"):
        work(twin)

    workload = get_workload(config, digits.manifest)
    rows = SharedBatches(config, workload, "train", Worker()).rows(6)
    assert json.loads((output / "diverged.json").read_text()) == {"step": 7, "rows": rows}
    assert said[-1] == "diverged"
    [run] = tracking.read_runs(config)
    assert run.status == "FAILED"
    assert len(history(config, run.run_id)) == 7
    assert not (output / "result.json").exists()


def test_no_worker_of_a_run_that_diverges_leaves_before_the_chief_has_told(
    work: Callable[..., None],
    config: Config,
    digits: Dataset,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The launcher takes the first that leaves for one that has died, and ends the others.
    local, twin = threading.local(), FakeTwin(workers=2)
    twin.loss = lambda step: math.nan if step >= 7 else 1 / step
    monkeypatch.setattr(Worker, "from_environment", lambda replicas: Worker(local.rank, 2))
    study = tracking.create_run(config, "a run", "train", "study", {})
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, study)
    told_before: list[bool] = []

    def work_as(rank: int) -> None:
        local.rank = rank
        with pytest.raises(DivergedError):
            work(twin)
        told_before.append("diverged" in said)

    other = threading.Thread(target=work_as, args=(1,))
    other.start()
    work_as(0)
    other.join()

    assert told_before == [True, True]
