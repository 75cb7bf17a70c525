from collections.abc import Callable
from typing import Any

import pytest

from pipelines import tracking
from pipelines.config import Config

STUDY = "20250601T120000Z"


def test_deleted_runs_are_gone_from_the_study_and_can_be_restored(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    stays, goes = new_run(config), new_run(config)

    tracking.delete_runs(config, [goes])
    left = [run.run_id for run in tracking.read_runs(config)]
    client.restore_run(goes)

    assert left == [stays]
    assert {run.run_id for run in tracking.read_runs(config)} == {stays, goes}


def test_a_run_may_have_a_colour_of_its_own(config: Config) -> None:
    tracking.create_run(config, "curve", "summary", STUDY, {}, colour="#5B5BD6")
    tracking.create_run(config, "cell", "cell", STUDY, {})

    colours = {run.name: run.tags.get("mlflow.runColor") for run in tracking.read_runs(config)}
    assert colours == {"curve": "#5B5BD6", "cell": None}


def test_how_a_run_ended_is_not_changed_afterwards(
    config: Config, new_run: Callable[..., str]
) -> None:
    run_id = new_run(config)

    tracking.finish_run(config, run_id, "KILLED")
    tracking.finish_run(config, run_id, "FINISHED")

    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "RUNNING"), (ValueError("loss is nan"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
    ids=["no error", "an error", "an interruption"],
)
def test_a_block_that_fails_ends_its_run(
    config: Config, error: BaseException | None, status: str, new_run: Callable[..., str]
) -> None:
    run_id = new_run(config)

    try:
        with tracking.ended_if_failed(config, run_id):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error

    assert [run.status for run in tracking.read_runs(config)] == [status]
