import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from pipelines import tracking
from pipelines.config import Config
from pipelines.errors import DeniedError, InputError, WorkError


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


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((401, b"Who are you?"), InputError, "refuses these credentials; .*MLFLOW_TRACKING_USER"),
        ((403, b"Permission denied"), DeniedError, "refuses these credentials; .*a user who may"),
        ((404, b"<html>Welcome</html>"), WorkError, "does not answer as MLflow does"),
        ((200, b"<html>Welcome</html>"), WorkError, "does not answer as MLflow does"),
    ],
    ids=["unknown", "denied", "not found", "a page"],
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
    config: Config, monkeypatch: pytest.MonkeyPatch, given: str | None, new_run: Callable[..., str]
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
