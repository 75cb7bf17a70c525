"""The tracking server as shipped: MLflow with users, on PostgreSQL and an object store.

It is started with the command and the environment of infra/compose.yaml, which are those of the
Deployment in infra/kubernetes, and with passwords that infra/secrets.sh has made. In the place of
the object store is moto's.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import requests
import yaml

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS
from pipelines.tracking import read_runs
from tests.infra.services import free_port, object_store, postgres, program, running

pytestmark = [
    pytest.mark.services,
    pytest.mark.both_frameworks,
    pytest.mark.timeout(900),
]

INFRA = PROJECT_ROOT / "infra"
QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
SMALL = ["training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16"]
SECONDS_TO_START = 240.0
STEPS = ("steps", "a-password-of-the-steps")
"""The user as whom the pipelines' steps log."""


@dataclass(frozen=True)
class Server:
    url: str
    secrets: dict[str, str]
    environment: dict[str, str]
    log: Path

    @property
    def admin(self) -> tuple[str, str]:
        return (
            self.secrets["MLFLOW_AUTH_ADMIN_USERNAME"],
            self.secrets["MLFLOW_AUTH_ADMIN_PASSWORD"],
        )

    def status(self, user: tuple[str, str] | None = None, host: str | None = None) -> int:
        """What it answers to a question for its experiments."""
        headers = {"Host": host} if host else {}
        question = f"{self.url}/api/2.0/mlflow/experiments/search?max_results=10"
        return requests.get(question, auth=user, headers=headers, timeout=60).status_code


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("secrets") / "secrets.env"
    subprocess.run([INFRA / "secrets.sh", file], check=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


@pytest.fixture(scope="module")
def server(secrets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shipped = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["mlflow"]
    environment = {
        name: re.sub(r"\$\{(\w+):\?.*?\}", lambda found: secrets[found[1]], value)
        for name, value in shipped["environment"].items()
    }
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    here = {"--host": "127.0.0.1", "--port": str(port)}
    command = [
        re.sub(r"^(--host|--port)=.*", lambda found: f"{found[1]}={here[found[1]]}", part)
        for part in shipped["command"]
    ]
    data = Path("/var/tmp") / f"tandem-postgres-{os.getpid()}"  # pytest's folders are root's alone
    with object_store("mlflow") as store, postgres(data, secrets["POSTGRES_PASSWORD"]) as database:
        environment |= database | {
            "MLFLOW_S3_ENDPOINT_URL": store,
            "MLFLOW_AUTH_CONFIG_PATH": str(INFRA / "kubernetes" / "base" / "basic_auth.ini"),
        }
        started = Server(f"http://127.0.0.1:{port}", secrets, environment, folder / "log")
        with running(
            [sys.executable, "-m", *command],
            started.log,
            cwd=folder,
            env=os.environ | environment,
        ):
            deadline = time.monotonic() + SECONDS_TO_START
            while not _is_healthy(started.url):
                assert time.monotonic() < deadline, started.log.read_text()
                time.sleep(0.5)
            yield started


def _is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def logged(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The config of a run of each framework, logged by a user who is no administrator."""
    created = requests.post(
        f"{server.url}/api/2.0/mlflow/users/create",
        json=dict(zip(("username", "password"), STEPS, strict=True)),
        auth=server.admin,
        timeout=60,
    )
    assert created.status_code == 200, created.text
    output = tmp_path_factory.mktemp("logged") / "out"
    settings = [f"output={output}", *SMALL, f"tracking.uri={server.url}"]
    sets = [part for setting in settings for part in ("--set", setting)]
    program = "from pipelines.cli import main; main()"
    environment = os.environ | {
        "MLFLOW_TRACKING_USERNAME": STEPS[0],
        "MLFLOW_TRACKING_PASSWORD": STEPS[1],
    }
    for command in (["ingest"], *(["train", framework] for framework in FRAMEWORKS)):
        done = subprocess.run(
            [sys.executable, "-c", program, *command, "--config", str(QUICKSTART), *sets],
            cwd=PROJECT_ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert STEPS[1] not in done.stdout + done.stderr
    return load_config(QUICKSTART, settings)


@pytest.fixture
def as_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", STEPS[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", STEPS[1])


@pytest.mark.parametrize("user", [None, ("admin", "password1234"), ("nobody", "")])
def test_nobody_reads_without_the_right_password(
    server: Server, user: tuple[str, str] | None
) -> None:
    assert server.status(server.admin) == 200
    assert server.status(user) == 401


def test_it_answers_to_its_names_in_a_cluster_and_to_no_others(server: Server) -> None:
    for host in ("mlflow:5000", "mlflow", "mlflow.tandem.svc.cluster.local:5000", "localhost:5000"):
        assert server.status(server.admin, host) == 200, host
    assert server.status(server.admin, "elsewhere.example") == 403


def test_both_frameworks_log_whole_runs_to_it(logged: Config, as_steps: None) -> None:
    runs = read_runs(logged)

    assert {run.params["framework"] for run in runs} == set(FRAMEWORKS)
    assert {run.status for run in runs} == {"FINISHED"}
    for run in runs:
        assert run.metrics["examples_per_second"] > 0
        assert 0 <= run.metrics["eval_accuracy"] <= 1


def test_artifacts_lie_in_the_object_store(server: Server, logged: Config) -> None:
    store = boto3.client(
        "s3",
        endpoint_url=server.environment["MLFLOW_S3_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    listed = store.list_objects_v2(Bucket="mlflow", Prefix="artifacts/")["Contents"]
    configs = [each["Key"] for each in listed if each["Key"].endswith("config.yaml")]
    assert len(configs) == len(FRAMEWORKS)
    for each in listed:
        content = store.get_object(Bucket="mlflow", Key=each["Key"])["Body"].read()
        for secret in (STEPS[1], *_passwords(server)):
            assert secret.encode() not in content, each["Key"]


def test_no_password_is_in_any_table_or_file_or_log(server: Server, logged: Config) -> None:
    dumped = subprocess.run(
        [program("pg_dump"), "mlflow"],
        env=os.environ | server.environment,
        capture_output=True,
        check=True,
    ).stdout
    assert b"eval_accuracy" in dumped
    left = {"the database": dumped, "the server's log": server.log.read_bytes()}
    left |= {str(path): path.read_bytes() for path in logged.output.rglob("*") if path.is_file()}
    for where, content in left.items():
        for secret in (STEPS[1], *_passwords(server)):
            assert secret.encode() not in content, where


def _passwords(server: Server) -> list[str]:
    return [
        value
        for name, value in server.secrets.items()
        if name not in ("AWS_ACCESS_KEY_ID", "MLFLOW_AUTH_ADMIN_USERNAME")
    ]
