import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines import tracking
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.runs import KIND_TAG, STUDY_TAG

STUDY = "20250601T120000Z"


def test_an_unknown_study_is_answered_with_the_known_ones(config: Config) -> None:
    for name in ("night", "day"):
        tracking.prepare_store(config.model_copy(update={"name": name}))

    with pytest.raises(InputError) as raised:
        tracking.read_runs(config.model_copy(update={"name": "nihgt"}))

    said, _, known = str(raised.value).partition("it has: ")
    assert said.startswith("--study nihgt: ")
    names = known.split(", ")
    assert {"night", "day"} <= set(names)
    assert names == sorted(names)


def test_a_run_is_read_as_it_was_written(config: Config, new_run: Callable[..., str]) -> None:
    before = time.time()
    run_id = new_run(config, "tf one_device x1 #2", workers=1, strategy="one_device", rate=3e-3)
    tracking.log_metrics(
        config, run_id, {"examples_per_second": 4716.474243185868, "eval_accuracy": 0.5}
    )
    tracking.log_metrics(config, run_id, {"eval_accuracy": 0.75}, {"tandem.note": "twice"})
    tracking.finish_run(config, run_id, "FINISHED")

    [run] = tracking.read_runs(config)

    assert run.run_id == run_id
    assert run.name == "tf one_device x1 #2"
    assert run.status == "FINISHED"
    assert before - 1 <= run.start_time <= time.time() + 1
    assert run.params == {"workers": "1", "strategy": "one_device", "rate": "0.003"}
    assert run.metrics == {"examples_per_second": 4716.474243185868, "eval_accuracy": 0.75}
    ours = {name: value for name, value in run.tags.items() if name.startswith("tandem.")}
    assert ours == {KIND_TAG: "cell", STUDY_TAG: STUDY, "tandem.note": "twice"}


@pytest.mark.parametrize("kind", ["cell", "train", "pipeline", "summary"])
def test_every_kind_of_run_is_read_as_what_it_is(config: Config, kind: Any) -> None:
    tracking.create_run(config, "a run", kind, STUDY, {})

    [run] = tracking.read_runs(config)

    assert run.kind == kind
    assert run.status == "RUNNING"


def test_reading_runs_leaves_the_process_as_it_was(
    config: Config, new_run: Callable[..., str]
) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    new_run(config)
    assert len(tracking.read_runs(config)) == 1

    assert gc.isenabled()
    with Session(create_engine("sqlite://")) as session:
        session.execute(text("select 1"))
        assert session.expire_on_commit


def test_runs_come_oldest_first_through_all_pages(
    config: Config, monkeypatch: pytest.MonkeyPatch, new_run: Callable[..., str]
) -> None:
    from mlflow import MlflowClient

    pages = []
    search = MlflowClient.search_runs

    def search_in_small_pages(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        pages.append(search(self, *args, **kwargs | {"max_results": 2}))
        return pages[-1]

    monkeypatch.setattr(MlflowClient, "search_runs", search_in_small_pages)
    made = []
    for number in range(5):
        made.append(new_run(config, f"run {number}"))
        time.sleep(0.002)  # a start time is in milliseconds

    runs = tracking.read_runs(config)

    assert [run.run_id for run in runs] == made
    assert [run.name for run in runs] == [f"run {number}" for number in range(5)]
    assert [len(page) for page in pages] == [2, 2, 1]


def test_only_the_studys_own_runs_are_read(config: Config, new_run: Callable[..., str]) -> None:
    other = config.model_copy(update={"name": f"{config.name}-other"})
    mine, theirs = new_run(config), new_run(other)

    assert [run.run_id for run in tracking.read_runs(config)] == [mine]
    assert [
        run.run_id for run in tracking.read_runs(config.model_copy(update={"name": other.name}))
    ] == [theirs]


def test_an_experiment_without_runs_has_none(config: Config) -> None:
    tracking.prepare_store(config)

    assert tracking.read_runs(config) == []


def test_a_file_that_is_there_and_cannot_be_had_is_not_taken_for_none(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the tracking server answers and its object store does not."""
    tracking.prepare_store(config)
    run_id = tracking.create_run(config, "parity", "parity", STUDY, {})
    file = tmp_path / "parity.json"
    file.write_text("{}")
    tracking.log_files(config, run_id, [file])
    assert tracking.read_file(config, run_id, "parity.json") == "{}"
    assert tracking.read_file(config, run_id, "other.json") is None

    def fail(*_: Any) -> None:
        raise MlflowException("503 Server Error: for url http://bob:secret@store/parity.json")

    monkeypatch.setattr(MlflowClient, "download_artifacts", fail)
    with pytest.raises(WorkError) as raised:
        tracking.read_file(config, run_id, "parity.json")

    assert str(raised.value) == (
        f"tracking.uri: {config.shown_tracking_uri} has parity.json of run {run_id}, and does not "
        "give it (503 Server Error: for url http://store/parity.json)"
    )
