"""Who may ask the tracking server as shipped, and under which names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import tracking
from pipelines.config import Config
from tests.infra.tracking_server import READER, STEPS, TrackingServer, User

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

EXPERIMENTS = "api/2.0/mlflow/experiments/search?max_results=10"
STRANGERS = [None, ("admin", "password1234"), ("nobody", ""), (STEPS[0], READER[1])]


@pytest.mark.parametrize("user", STRANGERS)
def test_nobody_reads_without_the_right_password(server: TrackingServer, user: User | None) -> None:
    for known in (server.admin, STEPS, READER):
        assert server.get(EXPERIMENTS, known).status_code == 200
    assert server.get(EXPERIMENTS, user).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api/2.0/mlflow-artifacts/artifacts",
        "api/2.0/mlflow-artifacts/artifacts/1/run/artifacts/config.yaml",
        "ajax-api/2.0/mlflow/metrics/get-history?run_id=run&metric_key=train_loss",
        "ajax-api/2.0/mlflow/runs/search",
        "get-artifact?run_uuid=run&path=config.yaml",
        "graphql",
        "api/2.0/mlflow/users/get?username=admin",
    ],
)
def test_no_way_in_is_open(server: TrackingServer, path: str) -> None:
    assert server.get(path, None).status_code == 401
    assert server.get("health", None).status_code == 200


def test_it_answers_to_its_names_in_a_cluster_and_to_no_others(server: TrackingServer) -> None:
    for host in ("mlflow:5000", "mlflow", "mlflow.tandem.svc.cluster.local:5000", "localhost:5000"):
        assert server.get(EXPERIMENTS, server.admin, Host=host).status_code == 200, host
    assert server.get(EXPERIMENTS, server.admin, Host="elsewhere.example").status_code == 403


def test_what_is_kept_with_a_run_is_read_where_only_the_server_can_be_reached(
    server: TrackingServer,
    load_quickstart: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside a cluster its object store cannot be; MLflow's client would ask it by itself."""
    for name, value in server.variables(STEPS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("no_proxy", "localhost")  # the server's name; the store's is an address
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    url = server.url.replace("127.0.0.1", "localhost")
    config = load_quickstart("name=reading", f"tracking.uri={url}")
    kept = tmp_path / "kept.json"
    kept.write_text("[1, 2, 3]")
    run_id = tracking.create_run(config, "parity", "parity", "20250601T120000Z", {})

    tracking.log_files(config, run_id, [kept])

    assert tracking.read_file(config, run_id, "kept.json") == "[1, 2, 3]"
    assert tracking.read_file(config, run_id, "another.json") is None
