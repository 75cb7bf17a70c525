import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config, load_config
from pipelines.errors import WorkError
from pipelines.ingest import Dataset
from pipelines.run_folder import RunFolder
from pipelines.runs import KIND_TAG, PREEMPTED_TAG, RESUMED_TAG, STUDY_TAG
from pipelines.tracking import tracked
from pipelines.worker import Worker

STUDY = "20250601T120000Z"
CHIEF = Worker(0, 2)
OTHER = Worker(1, 2)
CELL = Cell("torch", "ddp", 2)


@pytest.fixture
def quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """System metrics come often, so that a test need not wait for them."""
    monkeypatch.setattr(tracked, "SYSTEM_METRICS_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a training run."""
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.mark.parametrize(("study_id", "kind"), [(STUDY, "cell"), ("", "train")])
def test_the_chief_opens_a_run_where_none_was_named(
    config: Config, folder: Path, study_id: str, kind: str
) -> None:
    with tracking.tracked_run(config, CHIEF, CELL, study_id, {"workers": 2}, folder) as run:
        [during] = tracking.read_runs(config)
        run.log_params({"software_build": "cpu"})
        run.log_metrics({"examples_per_second": 12.5})

    [after] = tracking.read_runs(config)
    assert during.run_id == after.run_id == run.run_id
    assert (during.status, after.status) == ("RUNNING", "FINISHED")
    assert after.name == "torch ddp x2 #1"
    assert (after.kind, after.tags.get(STUDY_TAG, "")) == (kind, study_id)
    assert after.params == {"workers": "2", "software_build": "cpu"}
    assert after.metrics["examples_per_second"] == 12.5
    assert RunFolder.find(folder) == RunFolder.of(run.run_id, CELL, study_id, config.tracking_uri)


def test_the_chief_keeps_tags_and_json_beside_the_metrics(config: Config, folder: Path) -> None:
    with tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder) as run:
        run.log_metrics({"examples_per_second": 12.5}, {"tandem.note": "quick"})
        run.log_json("workers.json", [{"rank": 0}])

    [found] = tracking.read_runs(config)
    assert found.tags["tandem.note"] == "quick"
    kept = tracking.read_file(config, run.run_id, "workers.json")
    assert kept is not None
    assert json.loads(kept) == [{"rank": 0}]


def test_the_chief_continues_the_run_that_is_named_outside(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, new_run: Callable[..., str]
) -> None:
    run_id = new_run(config, "tf one_device x1 #1", workers=1)
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, run_id)
    RunFolder.of("another run", CELL, "another study").write(folder)

    with tracking.tracked_run(config, CHIEF, CELL, "another study", {}, folder) as run:
        run.log_params({"workers": 1, "python_version": "3.11"})  # the launcher wrote workers too

    [found] = tracking.read_runs(config)
    assert found.run_id == run.run_id == run_id
    assert found.name == "tf one_device x1 #1"
    assert (found.kind, found.tags[STUDY_TAG]) == ("cell", STUDY)
    assert found.params == {"workers": "1", "python_version": "3.11"}
    assert found.status == "FINISHED"
    assert RunFolder.find(folder) == RunFolder.of(run_id, CELL, "another study")


def test_without_a_name_the_run_goes_on_that_the_folder_holds(config: Config, folder: Path) -> None:
    with (
        pytest.raises(ValueError, match="node lost"),
        tracking.tracked_run(config, CHIEF, CELL, STUDY, {"workers": 2}, folder) as begun,
    ):
        raise ValueError("node lost")

    fewer = Cell("torch", "ddp", 1)
    with tracking.tracked_run(config, CHIEF, fewer, STUDY, {"workers": 1}, folder) as resumed:
        pass

    assert resumed.run_id == begun.run_id
    [found] = tracking.read_runs(config)
    assert (found.run_id, found.status) == (begun.run_id, "FINISHED")
    assert RunFolder.find(folder) == RunFolder.of(begun.run_id, fewer, STUDY, config.tracking_uri)


def test_a_run_that_failed_and_was_restarted_ends_as_its_restart_did(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, new_run: Callable[..., str]
) -> None:
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, new_run(config))

    with (
        pytest.raises(ValueError, match="node lost"),
        tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder),
    ):
        raise ValueError("node lost")
    failed = tracking.read_runs(config)
    with tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder):
        running = tracking.read_runs(config)

    assert [run.status for run in failed] == ["FAILED"]
    assert [run.status for run in running] == ["RUNNING"]
    assert [run.status for run in tracking.read_runs(config)] == ["FINISHED"]


def test_a_run_that_was_asked_to_end_is_killed_until_it_goes_on(
    config: Config, folder: Path
) -> None:
    with tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder) as run:
        run.end_preempted(6)
    [stopped] = tracking.read_runs(config)

    with tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder):
        pass

    assert (stopped.status, stopped.tags[PREEMPTED_TAG]) == ("KILLED", "6")
    [ended] = tracking.read_runs(config)
    assert (ended.status, ended.tags[PREEMPTED_TAG]) == ("FINISHED", "6")


def test_a_run_that_breaks_off_while_it_is_stopped_is_failed(config: Config, folder: Path) -> None:
    with (
        pytest.raises(ValueError, match="disk full"),
        tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder) as run,
    ):
        run.end_preempted(6)
        raise ValueError("disk full")

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_what_differs_when_a_run_goes_on_is_kept_beside_how_it_began(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config, workers=2, seed=0), CHIEF)

    run.log_params({"workers": 4, "seed": 0, "python_version": "3.11"})

    found = client.get_run(run.run_id).data
    assert found.params == {"workers": "2", "seed": "0", "python_version": "3.11"}
    assert json.loads(found.tags[RESUMED_TAG]) == {"workers": "4"}


def test_a_run_whose_launcher_recorded_it_otherwise_does_not_begin(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config, hardware="two cores", repeat=0), CHIEF)

    with pytest.raises(WorkError, match=r"hardware is 'four cores' here, .* as 'two cores'; "):
        run.log_params({"hardware": "four cores", "repeat": 0, "software_build": "cpu"})

    assert RESUMED_TAG not in client.get_run(run.run_id).data.tags


def test_a_run_that_a_worker_has_begun_may_go_on_elsewhere_and_says_so(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config, hardware="two cores"), CHIEF)

    run.log_params({"hardware": "two cores", "software_build": "cpu"})
    run.log_params({"hardware": "four cores", "software_build": "cpu"})

    tags = client.get_run(run.run_id).data.tags
    assert json.loads(tags[RESUMED_TAG]) == {"hardware": "four cores"}


def test_a_run_that_goes_on_as_it_began_has_nothing_to_say_of_it(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config, workers=2, rate=3e-3), CHIEF)

    run.log_params({"workers": 2, "rate": 3e-3})
    run.log_params({})

    assert RESUMED_TAG not in client.get_run(run.run_id).data.tags


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_training_run_that_breaks_off_is_failed(
    config: Config, folder: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), tracking.tracked_run(config, CHIEF, CELL, STUDY, {}, folder):
        raise error

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_any_other_rank_writes_nothing_of_the_runs_own_and_does_not_end_it(
    config: Config,
    digits: Dataset,
    folder: Path,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    new_run: Callable[..., str],
) -> None:
    run_id = new_run(config, workers=2)
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, run_id)

    with tracking.tracked_run(config, OTHER, CELL, STUDY, {"rank": 1}, folder) as run:
        run.log_params({"workers": 7, "python_version": "3.11"})
        run.log_config()
        run.log_dataset(digits)
        run.log_metrics({"examples_per_second": 12.5}, {"tandem.note": "quick"})
        run.log_json("workers.json", [])
        run.log_series("train_loss", [2.3, 2.2])
        run.end_preempted(6)

    [found] = tracking.read_runs(config)
    assert found.run_id == run_id
    assert found.params == {"workers": "2"}
    assert {name for name in found.tags if name.startswith("tandem.")} == {KIND_TAG, STUDY_TAG}
    assert [name for name in found.metrics if not name.startswith("system/rank_1/")] == []
    assert found.status == "RUNNING"
    assert client.get_run(run_id).inputs.dataset_inputs == []
    assert client.list_artifacts(run_id) == []
    assert list(folder.iterdir()) == []


def test_any_other_rank_opens_no_run_of_its_own(config: Config, folder: Path) -> None:
    tracking.prepare_store(config)

    with tracking.tracked_run(config, OTHER, CELL, STUDY, {"rank": 1}, folder) as run:
        run.log_metrics({"examples_per_second": 12.5})

    assert tracking.read_runs(config) == []


@pytest.mark.usefixtures("quick_samples")
@pytest.mark.parametrize("worker", [CHIEF, OTHER], ids=["chief", "other"])
def test_every_ranks_system_metrics_carry_its_rank(
    config: Config,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    worker: Worker,
    new_run: Callable[..., str],
) -> None:
    monkeypatch.setenv(tracking.RUN_ID_VARIABLE, new_run(config))
    name = f"system/rank_{worker.rank}/cpu_utilization_percentage"

    with tracking.tracked_run(config, worker, CELL, STUDY, {}, folder):
        deadline = time.monotonic() + 60
        while name not in tracking.read_runs(config)[0].metrics:
            assert time.monotonic() < deadline, "no system metrics came"
            time.sleep(0.05)

    [found] = tracking.read_runs(config)
    assert {metric.rsplit("/", 1)[0] for metric in found.metrics} == {f"system/rank_{worker.rank}"}


def test_a_series_longer_than_a_request_is_kept_whole(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)
    values = [1 / step for step in range(1, 2501)]

    run.log_series("train_loss", iter(values))

    history = client.get_metric_history(run.run_id, "train_loss")
    assert len(history) == 2500
    points = sorted((point.step, point.value) for point in history)
    assert points == list(enumerate(values, start=1))
    assert tracking.read_runs(config)[0].metrics == {"train_loss": 1 / 2500}


def test_a_series_that_goes_on_is_logged_from_where_it_was(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)
    run.log_series("train_loss", [2.0, 1.5, 1.2])
    run.log_metrics({"eval_loss": 0.3})

    run.log_series("train_loss", [2.0, 1.5, 1.2, 1.0, 0.9])
    run.log_series("train_loss", [2.0, 1.5, 1.2, 1.0, 0.9])

    history = client.get_metric_history(run.run_id, "train_loss")
    points = sorted((point.step, point.value) for point in history)
    assert points == [(1, 2.0), (2, 1.5), (3, 1.2), (4, 1.0), (5, 0.9)]


def test_a_series_without_values_logs_none(config: Config, new_run: Callable[..., str]) -> None:
    tracking.TrackedRun(config, new_run(config), CHIEF).log_series("train_loss", [])

    assert tracking.read_runs(config)[0].metrics == {}


def test_the_dataset_is_the_runs_input_with_its_fingerprint(
    config: Config, digits: Dataset, client: Any, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)

    run.log_dataset(digits)

    [given] = client.get_run(run.run_id).inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert given.dataset.digest == digits.manifest.fingerprint[:36]
    assert given.dataset.source == str(digits.folder)
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}


@pytest.mark.usefixtures("elsewhere")
def test_the_resolved_configuration_is_kept_with_the_run(
    config: Config, tmp_path: Path, new_run: Callable[..., str]
) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)

    run.log_config()

    kept = tmp_path / "out" / "artifacts" / run.run_id / "artifacts" / "config.yaml"
    assert load_config(kept).digest() == config.digest()
