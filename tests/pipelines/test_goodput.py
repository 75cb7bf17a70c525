import time

import pytest

from pipelines.goodput import CATEGORIES, LEDGER, RunLedger, Spent, goodput_metrics, spend
from pipelines.metrics import METRICS, PHASES


def spent(**seconds: float) -> Spent:
    return seconds


def step(done: int, **seconds: float) -> dict[str, object]:
    return {"event": "step", "step": done, "steps": 99, "spent": seconds}


def ended(**seconds: float) -> dict[str, object]:
    phases = {"report_seconds": 0.5, "exit_seconds": 0.25}
    return {"event": "ended", "phases": phases, "spent": seconds}


def test_every_phase_has_a_category_and_every_category_a_metric() -> None:
    for phase in PHASES:
        assert sum(spend({phase: 2.0}, {}, 2.0).values()) == 2
    assert set(LEDGER) < set(METRICS)
    assert len(LEDGER) == len(CATEGORIES)


def test_a_life_is_divided_by_cause_without_loss() -> None:
    phases = {
        "start_seconds": 1.0,
        "import_seconds": 2.0,
        "tracking_seconds": 4.0,
        "rendezvous_seconds": 8.0,
        "build_seconds": 16.0,
        "restore_seconds": 32.0,
        "first_step_seconds": 64.0,
        "warmup_seconds": 128.0,
        "train_seconds": 256.0,
        "checkpoint_seconds": 512.0,
        "evaluate_seconds": 1024.0,
        "report_seconds": 2048.0,
        "exit_seconds": 4096.0,
    }
    aside = {
        ("rendezvous_seconds", "barrier"): 3.0,
        ("warmup_seconds", "data_wait"): 5.0,
        ("train_seconds", "data_wait"): 7.0,
        ("train_seconds", "barrier"): 11.0,
        ("report_seconds", "barrier"): 13.0,
    }

    found = spend(phases, aside, 24.0)

    assert found == {
        "step": 24 + (128 - 5) + (256 - 7 - 11),
        "initialisation": 1 + 2 + (8 - 3) + 16 + (64 - 24),
        "data_wait": 5 + 7,
        "checkpoint_save": 512,
        "checkpoint_restore": 32,
        "wasted_steps": 0,
        "evaluation": 1024,
        "tracking": 4 + 2048 - 13,
        "barrier": 3 + 11 + 13,
        "shutdown": 4096,
    }
    assert sum(found.values()) == sum(phases.values())


def test_a_first_step_that_is_quicker_than_others_is_a_step() -> None:
    assert spend({"first_step_seconds": 2.0}, {}, 3.0)["step"] == 2


def test_the_ledger_has_a_row_for_each_cause_and_the_share_of_steps() -> None:
    metrics = goodput_metrics(spent(step=3.0, barrier=1.0), wall_seconds=12.0)

    assert set(metrics) == {"goodput_share", *LEDGER}
    assert metrics["goodput_share"] == 0.25
    assert metrics["goodput_seconds"] == 3
    assert metrics["badput_barrier_seconds"] == 1
    assert sum(metrics[name] for name in LEDGER) == 4


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The launcher's clock, which passes only as a test says."""
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    return clock


def attempt(ledger: RunLedger, now: list[float], *events: dict[str, object]) -> None:
    """One whose first process starts after 3 s, and of which is heard every 10 s."""
    ledger.begin()
    now[0] += 3
    ledger.started()
    for event in events:
        now[0] += 10
        ledger.heard(event)


def test_what_follows_the_last_word_is_the_end_of_the_processes(now: list[float]) -> None:
    ledger = RunLedger()

    attempt(ledger, now, step(1, step=1.0, initialisation=9.0), ended(step=15.0, tracking=5.0))
    ledger.end(22.0)

    metrics = ledger.metrics(22.0)
    assert metrics["exit_seconds"] == 0.25 + 2
    assert metrics["report_seconds"] == 0.5
    assert metrics["badput_shutdown_seconds"] == 2
    assert sum(metrics[name] for name in LEDGER) == 22


def test_a_run_whose_end_was_not_told_has_no_ledger(now: list[float]) -> None:
    ledger = RunLedger()

    attempt(ledger, now, step(1, step=1.0))
    ledger.end(10.0)

    assert ledger.metrics(10.0) == {}


@pytest.mark.parametrize(
    ("begins_again_after", "share_kept"), [(8, 0.8), (0, 0.0), (12, 1.0)], ids=str
)
def test_steps_of_a_failed_attempt_count_as_far_as_a_checkpoint_kept_them(
    now: list[float], begins_again_after: int, share_kept: float
) -> None:
    ledger = RunLedger()
    attempt(
        ledger,
        now,
        step(1, initialisation=10.0),
        step(10, initialisation=10.0, step=6.0, data_wait=2.0, checkpoint_save=2.0),
    )
    now[0] += 4
    seconds = ledger.fail()

    attempt(ledger, now, step(begins_again_after + 1, initialisation=10.0), ended(step=20.0))
    ledger.end(20.0)

    assert seconds == 24
    metrics = ledger.metrics(44.0)
    assert metrics["goodput_seconds"] == pytest.approx(20 + 6 * share_kept)
    assert metrics["badput_data_wait_seconds"] == pytest.approx(2 * share_kept)
    assert metrics["badput_wasted_steps_seconds"] == pytest.approx(8 * (1 - share_kept) + 4)
    assert metrics["badput_initialisation_seconds"] == 10
    assert metrics["badput_checkpoint_save_seconds"] == 2
    assert sum(metrics[name] for name in LEDGER) == pytest.approx(44)


def test_steps_that_are_lost_later_are_lost_though_the_next_attempt_kept_them(
    now: list[float],
) -> None:
    ledger = RunLedger()
    for done in (10, 20):
        attempt(ledger, now, step(done - 9), step(done, step=20.0))
        ledger.fail()
    attempt(ledger, now, step(6), ended(step=20.0))
    ledger.end(20.0)

    # Of ten steps each, the last attempt began after the fifth of the first.
    assert ledger.metrics(60.0)["goodput_seconds"] == pytest.approx(10 + 0 + 20)


def test_an_attempt_of_which_nothing_was_heard_is_wasted_altogether(now: list[float]) -> None:
    ledger = RunLedger()
    attempt(ledger, now)
    now[0] += 5
    seconds = ledger.fail()
    attempt(ledger, now, ended(step=10.0))
    ledger.end(10.0)

    assert seconds == 5
    assert ledger.metrics(15.0)["badput_wasted_steps_seconds"] == 5
