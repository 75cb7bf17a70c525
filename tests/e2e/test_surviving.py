"""The fault table: what happens to a cluster is done to real runs, which come back as they were.

``benchmarks/faults.py`` does the faults, and ``make fault-table`` measures them for the docs.
"""

import pytest

from benchmarks.faults import FAULTS, Outcome, Runs
from pipelines.goodput import LEDGER
from pipelines.strategies import FRAMEWORKS, Framework

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.both_frameworks,
]
TOLERANCE = 1e-6


@pytest.fixture(scope="module", params=FRAMEWORKS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All of one framework, so that the unbroken run is made once."""
    framework: Framework = request.param
    return Runs(framework, tmp_path_factory.mktemp(framework))


def require_unbroken(outcome: Outcome) -> None:
    assert outcome.steps == 160
    assert outcome.largest_difference == 0
    assert outcome.final_loss == outcome.unbroken_final_loss


def test_a_run_that_is_asked_to_end_saves_and_loses_nothing(runs: Runs) -> None:
    outcome = FAULTS["SIGTERM"](runs)

    require_unbroken(outcome)
    assert (outcome.exit_codes, outcome.lost_steps) == ([0, 0], 0)
    assert "asked to end, and saved after step" in outcome.said
    assert "going on from step" in outcome.said


@pytest.mark.parametrize(
    ("fault", "rank"),
    [
        ("kill -9 of the chief", 0),
        pytest.param("kill -9 of another worker", 1, marks=pytest.mark.long),
    ],
)
def test_a_group_whose_worker_is_killed_starts_again_from_its_checkpoint(
    runs: Runs, fault: str, rank: int
) -> None:
    outcome = FAULTS[fault](runs)

    require_unbroken(outcome)
    assert outcome.exit_codes == [0]
    assert f"worker {rank} ended with SIGKILL" in outcome.said
    assert "starting all workers again (1 of 1)" in outcome.said
    assert "going on from step" in outcome.said
    assert outcome.lost_steps < 160
    assert sum(outcome.metrics[name] for name in LEDGER) == pytest.approx(
        outcome.metrics["wall_seconds"], rel=0.01
    )
    assert outcome.metrics["badput_wasted_steps_seconds"] > 0
    assert outcome.metrics["badput_checkpoint_save_seconds"] > 0


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(runs: Runs) -> None:
    outcome = FAULTS["truncated newest checkpoint"](runs)

    require_unbroken(outcome)
    assert outcome.exit_codes == [0, 0]
    # From one checkpoint to the step at which SIGTERM was heard of: a check per second, on a busy
    # machine less than every_steps away.
    assert 0 < outcome.lost_steps <= 20
    assert "bytes; the one before it is used" in outcome.said


@pytest.mark.long
def test_workers_whose_launcher_is_killed_save_and_end(runs: Runs) -> None:
    outcome = FAULTS["kill -9 of the launcher"](runs)

    require_unbroken(outcome)
    assert (outcome.exit_codes, outcome.lost_steps) == ([-9, 0], 0)


@pytest.mark.long
@pytest.mark.network_namespaces
def test_a_cut_link_is_noticed_and_got_over(runs: Runs) -> None:
    outcome = FAULTS["cut link between two hosts"](runs)

    require_unbroken(outcome)
    assert outcome.exit_codes == [0]
    assert "starting all workers again (1 of 1)" in outcome.said


@pytest.mark.long
@pytest.mark.network_namespaces  # as root can mount too
def test_a_full_disk_is_told_and_training_goes_on(runs: Runs) -> None:
    outcome = FAULTS["full disk while saving"](runs)

    require_unbroken(outcome)
    assert (outcome.exit_codes, outcome.recovery_seconds) == ([0], None)
    assert "could not be saved (No space left on device)" in outcome.said


@pytest.mark.long
@pytest.mark.parametrize("workers", ["1 worker", "4 workers"])
def test_other_workers_go_on_within_what_rounding_allows(runs: Runs, workers: str) -> None:
    outcome = FAULTS[f"SIGTERM, then on {workers}"](runs)

    assert (outcome.exit_codes, outcome.steps) == ([0, 0], 160)
    assert 0 < outcome.largest_difference < TOLERANCE
    assert outcome.final_loss == pytest.approx(outcome.unbroken_final_loss, abs=TOLERANCE)
