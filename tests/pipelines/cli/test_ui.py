import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.chart_view import VIEW_TAG
from pipelines.cli.ui import serve_ui
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.tracking import create_run, prepare_store

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
UI = [str(Path(sys.executable).with_name("tandem")), "ui", "--config", str(QUICKSTART)]
UI += ["--set", "output=out", "--no-browser", "--port"]


@pytest.fixture
def port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port: int) -> bool:
    try:
        return get(port, "/")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def processes_in(session: int) -> list[psutil.Process]:
    """Those that belong to a session and are not zombies, whoever their parents are by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return met


@pytest.mark.parametrize("sent", [signal.SIGTERM], ids=lambda sent: sent.name)
def test_the_studys_runs_are_served_until_a_signal_ends_every_process(
    tmp_path: Path, quickstart: Config, port: int, sent: signal.Signals
) -> None:
    experiment = prepare_store(quickstart)
    run_id = create_run(quickstart, "tf one_device x1 #1", "cell", "20250601T120000Z", {"a": 1})
    files = sorted(path.name for path in tmp_path.iterdir())
    said = tmp_path.with_name(tmp_path.name + ".log")
    with said.open("w") as log:
        tandem = subprocess.Popen(
            [*UI, str(port)], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    sessions = {tandem.pid}
    try:
        assert wait_until(lambda: answers(port) or tandem.poll() is not None, 300)
        assert tandem.poll() is None, said.read_text()
        status, body = get(
            port, f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quickstart.name}"
        )
        assert status == 200
        assert json.loads(body)["experiment"]["experiment_id"] == experiment
        status, body = get(port, f"/api/2.0/mlflow/runs/get?run_id={run_id}")
        assert status == 200
        assert json.loads(body)["run"]["info"]["run_name"] == "tf one_device x1 #1"
        children = psutil.Process(tandem.pid).children(recursive=True)
        sessions |= {os.getsid(child.pid) for child in children}

        tandem.send_signal(sent)
        assert tandem.wait(timeout=60) == 0
        # What the server itself started may take a moment to notice.
        assert wait_until(lambda: not any(processes_in(one) for one in sessions), 30), [
            process.cmdline() for one in sessions for process in processes_in(one)
        ]
    finally:
        for one in sessions:
            for process in processes_in(one):
                process.kill()
        tandem.wait()
    assert f"MLflow: http://127.0.0.1:{port}/#/experiments/{experiment}" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert not answers(port)
    assert sorted(path.name for path in tmp_path.iterdir()) == files


def test_a_port_that_is_taken_is_refused(
    tmp_path: Path, quickstart: Config, taken_port: int
) -> None:
    prepare_store(quickstart)

    done = subprocess.run([*UI, str(taken_port)], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == (
        f"error: --port {taken_port}: something listens there already; choose another\n"
    )


def test_without_any_store_nothing_is_served_and_none_is_made(tmp_path: Path, port: int) -> None:
    done = subprocess.run([*UI, str(port)], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: out/mlflow.db: ")
    assert "`tandem run`" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_is_not_in_the_store_is_refused(
    load_quickstart: Callable[..., Config], port: int
) -> None:
    prepare_store(load_quickstart())

    with pytest.raises(InputError, match="has no study 'other'; run one with `tandem run`"):
        serve_ui(load_quickstart("name=other"), port, browser=False)


def test_a_tracking_server_is_opened_rather_than_served(
    load_quickstart: Callable[..., Config],
    taken_port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("pipelines.tracking.experiment_id", lambda config: "7")
    monkeypatch.setattr("pipelines.tracking.experiment_tags", lambda config: {VIEW_TAG: "{}"})
    config = load_quickstart("tracking.uri=http://bob:secret@tracking.example:8080/")

    serve_ui(config, taken_port, browser=True)
    serve_ui(config, taken_port, browser=False)

    assert opened == [
        "http://tracking.example:8080/#/experiments/7/runs"
        "?viewStateShareKey=tandem&compareRunsMode=CHART"
    ]
    assert capsys.readouterr().err == f"MLflow: {opened[0]}\n" * 2
