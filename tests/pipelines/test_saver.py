import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.checkpoint_config import CheckpointConfig
from pipelines.checkpoints import Checkpoints, step_of
from pipelines.errors import DivergedError, InputError, WorkError
from pipelines.preemption import Preemption
from pipelines.recorder import Recorder, StepClock
from pipelines.saver import Saver, Unsaved
from pipelines.worker import Worker

STEPS = 12
IDENTITY = {"optimizer": "adam", "seed": "0"}


class Seconds:
    """Each worker's own, which pass only as it says."""

    def __init__(self) -> None:
        self._local = threading.local()

    def now(self) -> float:
        return getattr(self._local, "now", 0.0)

    def pass_by(self, seconds: float) -> None:
        self._local.now = self.now() + seconds


class Gathering:
    """Of workers that are threads, and whose strategy is their rank."""

    def __init__(self, workers: int) -> None:
        self.counts = [0] * workers
        self._rows: list[Any] = [None] * workers
        self._barrier = threading.Barrier(workers, timeout=20)

    def __call__(self, rank: int, values: np.ndarray) -> np.ndarray:
        self.counts[rank] += 1
        self._rows[rank] = values.copy()
        self._barrier.wait()
        everyone = np.stack(self._rows)
        self._barrier.wait()
        return everyone


class Asked(Preemption):
    """Without a handler, which a thread may not have."""

    def watch(self) -> None:
        pass


@dataclass
class Trained:
    """What became of one worker."""

    saver: Any = None
    recorder: Recorder = field(default_factory=Recorder)
    trained: list[int] = field(default_factory=list)
    """The model: the steps that it has been trained by."""
    checks: list[int] = field(default_factory=list)
    """After which steps the workers spoke to each other."""
    ahead: list[int] = field(default_factory=list)
    """How many steps it might have done at once, before each step."""
    curve: list[float] = field(default_factory=list)
    error: Exception | None = None


class Training:
    """Workers that do next to nothing at a step, which takes them a quarter of a second."""

    def __init__(self, folder: Path, seconds: Seconds) -> None:
        self.folder = folder
        self.saves: list[tuple[int, bool]] = []
        """Rank 0's: after which step, and whether asynchronously."""
        self._seconds = seconds
        # What a test may replace.
        self.loss: Callable[[int, int], float] = lambda step, rank: (rank + 1) / step
        self.pace: Callable[[int], float] = lambda rank: 0.25
        self.at_step: Callable[[int, int, Preemption], None] = lambda step, rank, asked: None
        self.on_save: Callable[[int, int], None] = lambda step, rank: None
        self.on_finish: Callable[[int, int], None] = lambda step, rank: None

    @property
    def store(self) -> Checkpoints:
        return Checkpoints(self.folder, keep=3)

    @property
    def saved(self) -> list[int]:
        """After which steps there are checkpoints."""
        return sorted(step_of(path) for path in self.folder.glob("step-*"))

    @property
    def unfinished(self) -> list[Path]:
        """What was to become one."""
        return [*self.folder.glob(".*")]

    def run(
        self, workers: int = 1, steps: int = STEPS, identity: Any = IDENTITY, **config: object
    ) -> list[Trained]:
        """All workers' fates, in order of rank."""
        asked = CheckpointConfig.model_validate(config)
        gathering = Gathering(workers)
        everyone = [Trained() for _ in range(workers)]

        def work(rank: int) -> None:
            try:
                self._work(everyone[rank], Worker(rank, workers), asked, steps, identity, gathering)
            except Exception as error:
                everyone[rank].error = error

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(1, workers)]
        for thread in threads:
            thread.start()
        work(0)
        for thread in threads:
            thread.join()
        return everyone

    def run_well(self, workers: int = 1, **options: Any) -> list[Trained]:
        everyone = self.run(workers, **options)
        for each in everyone:
            if each.error is not None:
                raise each.error
        return everyone

    def _work(
        self,
        mine: Trained,
        worker: Worker,
        config: CheckpointConfig,
        steps: int,
        identity: dict[str, str],
        gathering: Gathering,
    ) -> None:
        rank, preemption = worker.rank, Asked()
        mine.saver = saver = Saver(
            SimpleNamespace(
                save_state=self._save_state,
                load_state=self._load_state,
                gather_over_workers=gathering,
            ),
            config,
            steps=steps,
            store=Checkpoints(self.folder, config.keep),
            identity=identity,
            worker=worker,
            strategy=rank,
            recorder=mine.recorder,
            preemption=preemption,
        )
        clock = StepClock(
            mine.recorder,
            steps=steps,
            warmup_steps=2,
            global_batch_size=8,
            fence=lambda: None,
            done=saver.start,
        )
        losses: list[float] = []

        def flush() -> None:
            mine.recorder.losses += losses
            losses.clear()

        saver.attach(mine.trained, "optimizer", clock, flush)
        clock.start()
        for step in range(saver.start + 1, steps + 1):
            mine.ahead.append(saver.steps_to_check(step - 1))
            self._seconds.pass_by(self.pace(rank))
            mine.trained.append(step)
            losses.append(self.loss(step, rank))
            self.at_step(step, rank, preemption)
            clock.step_done()
            spoken = gathering.counts[rank]
            stop = saver.stop_after(step)
            if gathering.counts[rank] > spoken:
                mine.checks.append(step)
            if stop:
                break
        flush()
        mine.curve = saver.curve

    def _save_state(
        self,
        folder: Path,
        strategy: int,
        model: list[int],
        optimizer: str,
        worker: Worker,
        asynchronous: bool,
    ) -> Callable[[], None]:
        step, rank, copy = model[-1], worker.rank, list(model)
        if worker.is_chief:
            self.saves.append((step, asynchronous))
        self.on_save(step, rank)

        def finish() -> None:
            self.on_finish(step, rank)
            if worker.is_chief:
                folder.mkdir(exist_ok=True)
                (folder / "model.json").write_text(json.dumps([copy, optimizer]))

        return finish

    def _load_state(
        self, folder: Path, strategy: int, model: list[int], optimizer: str, worker: Worker
    ) -> None:
        model[:], held = json.loads((folder / "model.json").read_text())
        assert held == optimizer


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    seconds = Seconds()
    monkeypatch.setattr("pipelines.saver.time", SimpleNamespace(monotonic=seconds.now))
    return Training(tmp_path / "checkpoints", seconds)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All events, of all workers."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "pipelines.events.emit", lambda event, **details: told.append({"event": event, **details})
    )
    return told


def of_kind(said: list[dict[str, Any]], kind: str) -> list[Any]:
    """What was said in events of a kind."""
    return [event.get("text", event.get("step")) for event in said if event["event"] == kind]


def ask_to_end(at: int, who: int = 0) -> Callable[[int, int, Preemption], None]:
    def at_step(step: int, rank: int, preemption: Preemption) -> None:
        if (step, rank) == (at, who):
            preemption.asked = True

    return at_step


def unbroken(workers: int = 1, steps: int = STEPS) -> list[float]:
    """The loss over the global batch, as ``Training`` makes it up."""
    ranks = range(workers)
    return [float(np.mean([(rank + 1) / step for rank in ranks])) for step in range(1, steps + 1)]


def test_a_run_that_is_not_kept_begins_at_the_start_and_is_never_stopped() -> None:
    keeper = Unsaved()

    keeper.attach(None, None, None, lambda: None)

    assert keeper.start == 0
    assert keeper.steps_to_check(7) > 1_000_000
    assert not any(keeper.stop_after(step) for step in range(1, 100))


def test_unless_it_is_asked_for_nothing_is_saved(
    training: Training, said: list[dict[str, Any]]
) -> None:
    [alone] = training.run_well()

    assert alone.trained == list(range(1, STEPS + 1))
    assert alone.saver.preempted_at is None
    assert training.saves == []
    assert not training.folder.exists()
    assert of_kind(said, "saved") == of_kind(said, "note") == []


def test_a_run_is_saved_after_every_so_many_steps_but_not_where_it_ends(
    training: Training, said: list[dict[str, Any]]
) -> None:
    training.run_well(every_steps=4)

    assert training.saves == [(4, False), (8, False)]
    assert training.saved == of_kind(said, "saved") == [4, 8]


def test_a_run_is_saved_when_so_much_time_has_passed_by_the_chiefs_clock(
    training: Training,
) -> None:
    training.pace = lambda rank: [20, 1][rank]

    training.run_well(workers=2, every_minutes=1)

    assert training.saved == [3, 6, 9]


def test_time_is_counted_from_the_last_time_it_was_saved_whatever_the_reason(
    training: Training,
) -> None:
    training.pace = lambda rank: 20

    training.run_well(every_steps=5, every_minutes=0.5, keep=9)

    assert training.saved == [2, 4, 5, 7, 9, 10]


def test_as_many_checkpoints_are_kept_as_is_asked_for(training: Training) -> None:
    training.run_well(every_steps=2, keep=2)

    assert [step for step, _ in training.saves] == [2, 4, 6, 8, 10]
    assert training.saved == [8, 10]


def test_a_checkpoint_holds_the_state_and_the_global_batchs_losses(training: Training) -> None:
    training.run_well(workers=3, every_steps=4)

    found, _ = training.store.newest()
    assert found is not None
    assert (found.step, found.workers, found.identity) == (8, 3, IDENTITY)
    assert found.losses == pytest.approx(unbroken(workers=3, steps=8))
    state = json.loads((training.store.state_of(8) / "model.json").read_text())
    assert state == [list(range(1, 9)), "optimizer"]


@pytest.mark.parametrize("who", [0, 1, 2])
def test_if_any_worker_is_asked_to_end_all_stop_after_the_same_step_and_save(
    training: Training, who: int
) -> None:
    training.at_step = ask_to_end(at=6, who=who)

    everyone = training.run_well(workers=3)

    assert [each.trained[-1] for each in everyone] == [9, 9, 9]
    assert [each.saver.preempted_at for each in everyone] == [9, 9, 9]
    assert training.saved == [9]


def test_a_run_that_is_asked_to_end_during_its_last_step_ends_well(training: Training) -> None:
    training.at_step = ask_to_end(at=STEPS)

    [alone] = training.run_well()

    assert alone.saver.preempted_at is None
    assert training.saved == []


def test_where_it_stops_is_saved_once_though_it_would_have_been_saved_anyhow(
    training: Training,
) -> None:
    training.at_step = ask_to_end(at=7)

    [alone] = training.run_well(every_steps=4)

    assert alone.saver.preempted_at == 8
    assert training.saves == [(4, False), (8, False)]


def test_workers_speak_to_each_other_about_once_a_second_after_the_same_steps(
    training: Training,
) -> None:
    training.pace = lambda rank: [0.125, 0.5, 0.03125][rank]

    everyone = training.run_well(workers=3, steps=60)

    # By the chief's pace a second has eight steps; of the first one nothing was known.
    assert [each.checks for each in everyone] == [[1, 9, 17, 25, 33, 41, 49, 57, 60]] * 3


def test_slow_steps_are_followed_by_a_word_each(training: Training) -> None:
    training.pace = lambda rank: 3

    [alone] = training.run_well()

    assert alone.checks == list(range(1, STEPS + 1))


def test_how_often_they_speak_follows_a_change_of_pace(training: Training) -> None:
    paces = iter([4.0] * 5 + [0.25] * 35)
    training.pace = lambda rank: next(paces)

    [alone] = training.run_well(steps=40)

    assert alone.checks == [1, 2, 3, 4, 5, 6, 10, 14, 18, 22, 26, 30, 34, 38, 40]


@pytest.mark.parametrize("every_steps", [1, 3, 5, 7])
def test_steps_that_are_done_at_once_never_cross_one_after_which_it_is_to_be_saved(
    training: Training, every_steps: int
) -> None:
    training.pace = lambda rank: 0.001

    [alone] = training.run_well(every_steps=every_steps, steps=30, keep=99)

    assert alone.ahead[0] == 1
    for done, steps in enumerate(alone.ahead):
        assert steps >= 1
        assert done // every_steps == (done + steps - 1) // every_steps
    assert training.saved == [step for step in range(1, 30) if step % every_steps == 0]


def test_a_loss_that_is_not_finite_ends_the_run_on_all_workers_with_its_first_step(
    training: Training,
) -> None:
    broken = {(7, 1): math.nan, (8, 2): math.inf, (8, 1): math.nan}
    training.loss = lambda step, rank: broken.get((step, rank), 1.0)

    everyone = training.run(workers=3)

    for each in everyone:
        assert isinstance(each.error, DivergedError)
        assert "not finite at step 7" in str(each.error)
        assert "diverged.json" in str(each.error)
        assert each.saver.diverged_at == 7
        assert each.trained[-1] == 9


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_at_the_last_step_does_not_go_unnoticed(
    training: Training, value: float
) -> None:
    training.loss = lambda step, rank: value if step == STEPS else 1.0

    [alone] = training.run()

    assert isinstance(alone.error, DivergedError)
    assert alone.saver.diverged_at == STEPS


def test_what_has_diverged_is_not_saved(training: Training) -> None:
    training.loss = lambda step, rank: math.nan if step == 7 else 1.0
    training.at_step = ask_to_end(at=7)

    [alone] = training.run(every_steps=4)

    assert isinstance(alone.error, DivergedError)
    assert alone.saver.preempted_at is None
    assert training.saved == [4]


def test_a_divergence_after_the_run_has_gone_on_is_counted_from_its_very_start(
    training: Training,
) -> None:
    training.at_step = ask_to_end(at=5)
    training.run_well()
    training.loss = lambda step, rank: math.nan if step == 7 else 1.0

    [alone] = training.run()

    assert alone.saver.start == 5
    assert alone.saver.diverged_at == 7


FAILURES = {
    "a full disk": (
        RuntimeError("model/1; No space left on device\n  [[SaveV2]] [Op:SaveV2]"),
        "No space left on device",
    ),
    "many lines": (RuntimeError("Traceback ...\n  in write\n\nshard 3 broke\n\n"), "shard 3 broke"),
    "nothing said": (RuntimeError(), "RuntimeError"),
}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["at once", "asynchronously"])
@pytest.mark.parametrize("where", ["on_save", "on_finish"])
@pytest.mark.parametrize(("failure", "reason"), FAILURES.values(), ids=FAILURES.keys())
def test_a_checkpoint_that_cannot_be_written_is_told_of_and_training_goes_on(
    training: Training,
    said: list[dict[str, Any]],
    failure: Exception,
    reason: str,
    where: str,
    asynchronous: bool,
) -> None:
    def fail(step: int, rank: int) -> None:
        if step == 4:
            raise failure

    setattr(training, where, fail)

    [alone] = training.run_well(every_steps=4, asynchronous=asynchronous)

    assert alone.trained == list(range(1, STEPS + 1))
    assert training.saved == of_kind(said, "saved") == [8]
    assert training.unfinished == []
    [note] = of_kind(said, "note")
    assert "step 4 could not be saved" in note
    assert note.endswith(f"({reason})")


def test_a_checkpoint_of_which_one_worker_could_not_write_its_part_is_told_of_and_is_none(
    training: Training, said: list[dict[str, Any]]
) -> None:
    def fail(step: int, rank: int) -> None:
        if (step, rank) == (4, 1):
            raise OSError("disk full")

    training.on_finish = fail

    everyone = training.run_well(workers=2, every_steps=4)

    assert [each.trained[-1] for each in everyone] == [STEPS, STEPS]
    assert training.saved == [8]
    assert ["could not be saved" in note for note in of_kind(said, "note")] == [True]


def test_where_not_even_a_folder_can_be_made_no_worker_begins_to_write(
    training: Training, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Checkpoints.begin

    def begin_unless_full(store: Checkpoints, step: int) -> None:
        if step == 4:
            raise OSError(28, "No space left on device")
        begin(store, step)

    written: list[tuple[int, int]] = []
    training.on_save = lambda step, rank: written.append((step, rank))
    monkeypatch.setattr(Checkpoints, "begin", begin_unless_full)

    everyone = training.run_well(workers=2, every_steps=4)

    assert [each.trained[-1] for each in everyone] == [STEPS, STEPS]
    assert sorted(written) == [(8, 0), (8, 1)]
    assert training.saved == [8]
    [note] = of_kind(said, "note")
    assert note.endswith("step 4 could not be saved (No space left on device)")


@pytest.mark.parametrize("who", [0, 1])
def test_a_run_that_is_to_end_and_cannot_be_saved_fails_on_all_workers(
    training: Training, who: int
) -> None:
    def fail(step: int, rank: int) -> None:
        if rank == who:
            raise OSError("disk full")

    training.at_step = ask_to_end(at=4)
    training.on_save = fail

    everyone = training.run(workers=2)

    for each in everyone:
        assert type(each.error) is WorkError
        assert str(each.error) == "asked to end after step 5, which could not be saved"
        assert each.saver.preempted_at is None


def test_training_goes_on_while_a_copy_is_written(training: Training) -> None:
    written, found = threading.Event(), []

    def at_step(step: int, rank: int, preemption: Preemption) -> None:
        if step == 6:
            found.append(training.store.newest()[0])
            written.set()

    training.at_step = at_step
    training.on_finish = lambda step, rank: written.wait(20)

    training.run_well(every_steps=4, asynchronous=True)

    assert found == [None]
    assert training.saves == [(4, True), (8, True)]
    assert training.saved == [4, 8]
    state = json.loads((training.store.state_of(4) / "model.json").read_text())
    assert state[0] == [1, 2, 3, 4]


def test_one_checkpoint_is_written_before_the_next_is_begun_and_all_before_the_end(
    training: Training,
) -> None:
    order = []

    def finish(step: int, rank: int) -> None:
        time.sleep(0.1)
        order.append(f"written {step}")

    training.on_save = lambda step, rank: order.append(f"begun {step}")
    training.on_finish = finish

    training.run_well(every_steps=4, asynchronous=True)

    assert order == ["begun 4", "written 4", "begun 8", "written 8"]
    assert training.saved == [4, 8]


def test_a_run_that_is_to_end_waits_for_its_last_checkpoint(training: Training) -> None:
    training.at_step = ask_to_end(at=7)
    training.on_finish = lambda step, rank: time.sleep(0.1)

    [alone] = training.run_well(every_steps=4, asynchronous=True)

    assert alone.saver.preempted_at == 8
    assert training.saves == [(4, True), (8, False)]
    assert training.saved == [4, 8]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 2), (2, 1), (1, 3)])
def test_a_run_goes_on_from_where_it_was_saved_as_if_it_had_never_stopped(
    training: Training, said: list[dict[str, Any]], before: int, after: int
) -> None:
    training.at_step = ask_to_end(at=4)
    training.run_well(workers=before)
    assert of_kind(said, "resumed") == []
    said.clear()

    training.at_step = lambda step, rank, preemption: None
    everyone = training.run_well(workers=after)

    for each in everyone:
        assert each.saver.start == 5
        assert each.trained == list(range(1, STEPS + 1))
        assert len(each.recorder.losses) == STEPS - 5
    expected = unbroken(before)[:5] + unbroken(after)[5:]
    assert everyone[0].curve == pytest.approx(expected)
    assert of_kind(said, "resumed") == [5]
    assert of_kind(said, "note") == ["going on from step 5"]


def test_a_run_may_stop_and_go_on_several_times(training: Training) -> None:
    for at, stopped in ((2, 5), (6, 6), (7, 7)):
        training.at_step = ask_to_end(at)
        [alone] = training.run_well(workers=1)
        assert alone.saver.preempted_at == stopped
    training.at_step = lambda step, rank, preemption: None

    [alone] = training.run_well()

    assert alone.saver.start == 7
    assert alone.trained == list(range(1, STEPS + 1))
    assert alone.curve == pytest.approx(unbroken())


def test_a_damaged_checkpoint_is_told_of_and_the_one_before_it_used(
    training: Training, said: list[dict[str, Any]]
) -> None:
    training.run_well(every_steps=4)
    (training.store.state_of(8) / "model.json").write_text("[]")
    said.clear()

    [alone] = training.run_well(every_steps=4)

    assert alone.saver.start == 4
    assert alone.curve == pytest.approx(unbroken())
    damage, going_on = of_kind(said, "note")
    assert "step-000008: state/model.json has 2 of " in damage
    assert damage.endswith("; the one before it is used")
    assert going_on == "going on from step 4"
    newest, damages = training.store.newest()
    assert newest is not None
    assert (newest.step, damages) == (8, [])  # written anew


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(training: Training) -> None:
    training.run_well(every_steps=4)
    for step in (4, 8):
        (training.store.state_of(step) / "model.json").unlink()

    [alone] = training.run()

    assert isinstance(alone.error, InputError)
    assert "no checkpoint there is whole" in str(alone.error)
    assert alone.trained == []


def test_what_a_killed_run_left_unfinished_is_gone_before_anything_is_saved(
    training: Training,
) -> None:
    for step in (3, 4):
        training.store.begin(step)

    training.run_well(every_steps=4)

    assert training.saved == [4, 8]
    assert training.unfinished == []


@pytest.mark.parametrize(
    ("identity", "said_of_it"),
    [
        ({"optimizer": "adam", "seed": "1"}, "since seed was 0, now 1;"),
        (
            {"optimizer": "sgd", "seed": "1"},
            "since optimizer was adam, now sgd; seed was 0, now 1;",
        ),
        (IDENTITY | {"workers": "2"}, "since workers was not known, now 2;"),
    ],
    ids=["one thing", "several", "something new"],
)
def test_another_runs_checkpoint_is_refused_with_what_differs(
    training: Training, identity: dict[str, str], said_of_it: str
) -> None:
    training.run_well(every_steps=4)

    [alone] = training.run(identity=identity)

    assert isinstance(alone.error, InputError)
    message = str(alone.error)
    assert message.startswith(f"{training.folder / 'step-000008'}: cannot go on from it, ")
    assert said_of_it in message
    assert len(message.splitlines()) == 1
    assert alone.trained == []


def test_every_worker_has_the_same_figures_whether_or_not_anything_was_saved(
    training: Training,
) -> None:
    saved = training.run_well(workers=2, every_steps=4)
    resumed = training.run_well(workers=2)

    for first, second in (saved, resumed):
        assert set(first.recorder.metrics) == set(second.recorder.metrics)
    assert saved[0].recorder.metrics["checkpoint_seconds"] > 0
    assert resumed[0].recorder.metrics["checkpoint_seconds"] == 0
    assert "restore_seconds" in resumed[0].recorder.metrics


def test_the_request_to_end_is_noted_though_a_framework_has_put_a_handler_of_its_own(
    tmp_path: Path,
) -> None:
    preemption, recorder = Preemption(), Recorder()
    clock = StepClock(
        recorder, steps=STEPS, warmup_steps=1, global_batch_size=8, fence=lambda: None
    )
    saver = Saver(
        SimpleNamespace(gather_over_workers=Gathering(1)),
        CheckpointConfig(),
        steps=STEPS,
        store=Checkpoints(tmp_path, keep=3),
        identity=IDENTITY,
        worker=Worker(),
        strategy=0,
        recorder=recorder,
        preemption=preemption,
    )

    with preemption.watched():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        saver.attach("model", "optimizer", clock, lambda: None)
        os.kill(os.getpid(), signal.SIGTERM)

    assert preemption.asked
