"""Who may ask the tracking server as shipped, and under which names."""

import pytest

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
