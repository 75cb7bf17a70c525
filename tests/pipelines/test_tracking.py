import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config, load_config
from pipelines.errors import InputError, WorkError
from pipelines.ingest import Dataset
from pipelines.run_folder import RunFolder
from pipelines.runs import KIND_TAG, PREEMPTED_TAG, RESUMED_TAG, STUDY_TAG
from pipelines.worker import Worker

STUDY = "20250601T120000Z"
CHIEF = Worker(0, 2)
OTHER = Worker(1, 2)
CELL = Cell("torch", "ddp", 2)


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def serve() -> Iterator[Callable[[int, bytes], str]]:
    """Starts a server that answers everything alike; returns its URI, with credentials."""
    servers: list[HTTPServer] = []

    def start(status: int, body: bytes) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

        servers.append(HTTPServer(("127.0.0.1", 0), Answer))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://bob:secret@127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def quick_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """System metrics come often, so that a test need not wait for them."""
    monkeypatch.setattr(tracking, "_SYSTEM_METRICS_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a training run."""
    made = tmp_path / "run"
    made.mkdir()
    return made


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another working directory, which must stay empty."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def new_run(config: Config, name: str = "torch ddp x2 #1", **params: object) -> str:
    return tracking.create_run(config, name, "cell", STUDY, params)


def test_study_ids_sort_by_time() -> None:
    first = tracking.new_study_id()
    time.sleep(1.1)  # a study takes longer

    assert first < tracking.new_study_id()


@pytest.mark.usefixtures("elsewhere")
def test_a_fresh_store_is_made_with_its_folder_and_only_once(
    load_quickstart: Callable[..., Config], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    config = load_quickstart()

    made = tracking.prepare_store(config)

    assert tracking.prepare_store(config) == made
    assert tracking.experiment_id(config) == made
    assert (tmp_path / "out" / "mlflow.db").is_file()
    found = MlflowClient(config.tracking_uri).search_experiments()
    assert sorted(experiment.name for experiment in found) == ["Default", "quickstart"]


@pytest.mark.usefixtures("elsewhere")
def test_a_local_stores_artifacts_lie_under_the_output_folder(
    config: Config, client: Any, tmp_path: Path
) -> None:
    experiment = client.get_experiment(tracking.prepare_store(config))

    assert experiment.name == config.name
    assert experiment.artifact_location == (tmp_path / "out" / "artifacts").as_uri()


def test_a_relative_output_folder_does_not_make_artifacts_depend_on_where_one_stands(
    uri: str,
    client: Any,
    tmp_path: Path,
    load_quickstart: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_quickstart("output=here", f"name={tmp_path.name}", f"tracking.uri={uri}")

    experiment = client.get_experiment(tracking.prepare_store(config))

    assert experiment.artifact_location == (tmp_path / "here" / "artifacts").as_uri()


def test_a_deleted_experiment_is_refused_until_it_is_restored(config: Config, client: Any) -> None:
    experiment = tracking.prepare_store(config)
    client.delete_experiment(experiment)

    with pytest.raises(InputError, match=f"name: .*'{config.name}' was deleted .*restore"):
        tracking.prepare_store(config)
    client.restore_experiment(experiment)

    assert tracking.prepare_store(config) == experiment


@pytest.mark.parametrize("read", [tracking.read_runs, tracking.experiment_id])
def test_reading_never_makes_a_store(
    read: Callable[[Config], object], quickstart: Config, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"mlflow\.db: .*`tandem run`"):
        read(quickstart)

    assert list(tmp_path.iterdir()) == []


def test_a_study_without_an_experiment_has_no_id(config: Config) -> None:
    tracking.prepare_store(config.model_copy(update={"name": "known"}))

    with pytest.raises(InputError, match=f"has no study '{config.name}'; run one with"):
        tracking.experiment_id(config)


def test_an_experiment_is_tagged_and_tagged_anew(config: Config) -> None:
    tracking.prepare_store(config)

    tracking.tag_experiment(config, "view", "first")
    tracking.tag_experiment(config, "view", "second")

    assert tracking.experiment_tags(config)["view"] == "second"


def test_a_study_that_is_not_there_is_answered_with_the_known_ones(config: Config) -> None:
    tracking.prepare_store(config.model_copy(update={"name": "night"}))

    with pytest.raises(InputError, match=r"or name one that it has: .*night"):
        tracking.experiment_tags(config)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((401, b"Who are you?"), InputError, "refuses these credentials; .*MLFLOW_TRACKING_USER"),
        ((404, b"<html>Welcome</html>"), WorkError, "does not answer as MLflow does"),
        ((200, b"<html>Welcome</html>"), WorkError, "does not answer as MLflow does"),
    ],
    ids=["refused", "not found", "a page"],
)
def test_a_server_that_answers_otherwise_is_named(
    configure: Callable[..., Config],
    serve: Callable[[int, bytes], str],
    answer: tuple[int, bytes],
    error: type[Exception],
    said: str,
) -> None:
    config = configure(f"tracking.uri={serve(*answer)}")

    with pytest.raises(error, match=f"^tracking.uri: http://[*]{{3}}@127.0.0.1:[0-9]+ {said}"):
        tracking.read_runs(config)


@pytest.mark.parametrize(
    "ask",
    [
        tracking.prepare_store,
        tracking.read_runs,
        tracking.experiment_id,
        lambda config: tracking.log_metrics(config, "a run", {"eval_loss": 1.0}),
        lambda config: tracking.require_run(config, "0" * 32),
    ],
    ids=["prepare_store", "read_runs", "experiment_id", "log_metrics", "require_run"],
)
def test_a_server_that_does_not_answer_is_named_without_its_password(
    configure: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Config], object],
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = configure(f"tracking.uri=http://bob:secret@127.0.0.1:{port}")

    with pytest.raises(WorkError) as raised:
        ask(config)

    assert str(raised.value) == (
        f"tracking.uri: http://***@127.0.0.1:{port} does not answer (Connection refused); "
        "start it there, or name another"
    )


def test_an_error_that_is_not_the_servers_stays_what_it_is(config: Config) -> None:
    from mlflow.exceptions import MlflowException

    tracking.prepare_store(config)

    with pytest.raises(MlflowException, match="not found"):
        tracking.finish_run(config, "0" * 32, "FINISHED")


def test_a_run_that_ends_on_a_server_is_not_told_of_on_standard_output(
    configure: Callable[..., Config],
    serve: Callable[[int, bytes], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """There ``--json`` has its answer, and MLflow's address of the run holds the password."""
    run = {"info": {"run_id": "0" * 32, "experiment_id": "1", "status": "RUNNING"}}
    config = configure(f"tracking.uri={serve(200, json.dumps({'run': run}).encode())}")

    tracking.finish_run(config, "0" * 32, "FINISHED")

    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("given", [None, "5"], ids=["by default", "as the user says"])
def test_a_server_is_waited_for_briefly_before_any_work_is_done_and_patiently_later(
    config: Config, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    seen: list[str | None] = []

    def look(*_: Any, **__: Any) -> list[Any]:
        seen.append(os.environ.get(name))
        raise ConnectionError

    monkeypatch.setattr("mlflow.MlflowClient.get_experiment_by_name", look)
    for ask in (tracking.prepare_store, tracking.read_runs):
        with pytest.raises(ConnectionError):
            ask(config)
    with pytest.raises(ConnectionError):
        new_run(config)

    assert seen == [given or "3", given or "3", given]
    assert os.environ.get(name) == given


def test_deleted_runs_are_gone_from_the_study_and_can_be_restored(
    config: Config, client: Any
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


def test_a_run_is_read_as_it_was_written(config: Config) -> None:
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


def test_a_value_per_step_is_kept_apart_from_the_others(config: Config, client: Any) -> None:
    run_id = new_run(config)

    efficiencies = {1: 1.0, 4: 0.7, 2: 0.9}
    points = {workers: {"scaling_efficiency": value} for workers, value in efficiencies.items()}
    tracking.log_curves(config, run_id, points)

    history = client.get_metric_history(run_id, "scaling_efficiency")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.9), (4, 0.7)]


def test_reading_runs_leaves_the_process_as_it_was(config: Config) -> None:
    from sqlalchemy import create_engine, text
    from sqlalchemy.orm import Session

    new_run(config)
    assert len(tracking.read_runs(config)) == 1

    assert gc.isenabled()
    with Session(create_engine("sqlite://")) as session:
        session.execute(text("select 1"))
        assert session.expire_on_commit


def test_how_a_run_ended_is_not_changed_afterwards(config: Config) -> None:
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
    config: Config, error: BaseException | None, status: str
) -> None:
    run_id = new_run(config)

    try:
        with tracking.ended_if_failed(config, run_id):
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error

    assert [run.status for run in tracking.read_runs(config)] == [status]


def test_runs_come_oldest_first_through_all_pages(
    config: Config, monkeypatch: pytest.MonkeyPatch
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


def test_only_the_studys_own_runs_are_read(config: Config) -> None:
    other = config.model_copy(update={"name": f"{config.name}-other"})
    mine, theirs = new_run(config), new_run(other)

    assert [run.run_id for run in tracking.read_runs(config)] == [mine]
    assert [
        run.run_id for run in tracking.read_runs(config.model_copy(update={"name": other.name}))
    ] == [theirs]


def test_an_experiment_without_runs_has_none(config: Config) -> None:
    tracking.prepare_store(config)

    assert tracking.read_runs(config) == []


def test_the_chief_opens_a_run_where_none_was_named(config: Config, folder: Path) -> None:
    with tracking.tracked_run(config, CHIEF, CELL, STUDY, {"workers": 2}, folder) as run:
        [during] = tracking.read_runs(config)
        run.log_params({"software_build": "cpu"})
        run.log_metrics({"examples_per_second": 12.5})

    [after] = tracking.read_runs(config)
    assert during.run_id == after.run_id == run.run_id
    assert (during.status, after.status) == ("RUNNING", "FINISHED")
    assert after.name == "torch ddp x2 #1"
    assert after.kind == "train"
    assert after.tags[STUDY_TAG] == STUDY
    assert after.params == {"workers": "2", "software_build": "cpu"}
    assert after.metrics["examples_per_second"] == 12.5
    assert RunFolder.find(folder) == RunFolder.of(run.run_id, CELL, STUDY, config.tracking_uri)


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
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
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
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
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
    config: Config, client: Any
) -> None:
    run = tracking.TrackedRun(config, new_run(config, workers=2, seed=0), CHIEF)

    run.log_params({"workers": 4, "seed": 0, "python_version": "3.11"})

    found = client.get_run(run.run_id).data
    assert found.params == {"workers": "2", "seed": "0", "python_version": "3.11"}
    assert json.loads(found.tags[RESUMED_TAG]) == {"workers": "4"}


def test_a_run_that_goes_on_as_it_began_has_nothing_to_say_of_it(
    config: Config, client: Any
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
    config: Config, digits: Dataset, folder: Path, client: Any, monkeypatch: pytest.MonkeyPatch
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
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker
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


def test_a_series_longer_than_a_request_is_kept_whole(config: Config, client: Any) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)
    values = [1 / step for step in range(1, 2501)]

    run.log_series("train_loss", iter(values))

    history = client.get_metric_history(run.run_id, "train_loss")
    assert len(history) == 2500
    points = sorted((point.step, point.value) for point in history)
    assert points == list(enumerate(values, start=1))
    assert tracking.read_runs(config)[0].metrics == {"train_loss": 1 / 2500}


def test_a_series_that_goes_on_is_logged_from_where_it_was(config: Config, client: Any) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)
    run.log_series("train_loss", [2.0, 1.5, 1.2])
    run.log_metrics({"eval_loss": 0.3})

    run.log_series("train_loss", [2.0, 1.5, 1.2, 1.0, 0.9])
    run.log_series("train_loss", [2.0, 1.5, 1.2, 1.0, 0.9])

    history = client.get_metric_history(run.run_id, "train_loss")
    points = sorted((point.step, point.value) for point in history)
    assert points == [(1, 2.0), (2, 1.5), (3, 1.2), (4, 1.0), (5, 0.9)]


def test_a_series_without_values_logs_none(config: Config) -> None:
    tracking.TrackedRun(config, new_run(config), CHIEF).log_series("train_loss", [])

    assert tracking.read_runs(config)[0].metrics == {}


def test_the_dataset_is_the_runs_input_with_its_fingerprint(
    config: Config, digits: Dataset, client: Any
) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)

    run.log_dataset(digits)

    [given] = client.get_run(run.run_id).inputs.dataset_inputs
    assert given.dataset.name == "digits"
    assert given.dataset.digest == digits.manifest.fingerprint[:36]
    assert given.dataset.source == str(digits.folder)
    assert {tag.key: tag.value for tag in given.tags} == {"mlflow.data.context": "training"}


@pytest.mark.usefixtures("elsewhere")
def test_the_resolved_configuration_is_kept_with_the_run(config: Config, tmp_path: Path) -> None:
    run = tracking.TrackedRun(config, new_run(config), CHIEF)

    run.log_config()

    kept = tmp_path / "out" / "artifacts" / run.run_id / "artifacts" / "config.yaml"
    assert load_config(kept).digest() == config.digest()
