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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests
import yaml

from pipelines.environments import PROJECT_ROOT
from tests.infra.services import free_port, object_store, postgres, program, running

__all__ = ["BUCKET", "READER", "STEPS", "TrackingServer", "User", "tracking_server"]

INFRA = PROJECT_ROOT / "infra"
SECONDS_TO_START = 240.0
BUCKET = "mlflow"

User = tuple[str, str]
"""Name and password."""
STEPS: User = ("steps", "a-password-of-the-steps")
"""As whom the pipelines' steps log."""
READER: User = ("reader", "a-password-of-a-reader")
"""Who has logged nothing."""


@dataclass(frozen=True)
class TrackingServer:
    """One that answers, with a user for the steps."""

    url: str
    secrets: dict[str, str]
    """What infra/secrets.sh has made."""
    environment: dict[str, str]
    log: Path

    @property
    def admin(self) -> User:
        """The first user."""
        name, password = "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD"
        return self.secrets[name], self.secrets[password]

    @property
    def passwords(self) -> list[str]:
        """Everything that nobody may read."""
        names = ("AWS_ACCESS_KEY_ID", "MLFLOW_AUTH_ADMIN_USERNAME")
        made = [value for name, value in self.secrets.items() if name not in names]
        return [*made, STEPS[1], READER[1]]

    def get(self, path: str, user: User | None, **headers: str) -> requests.Response:
        """What it answers."""
        return requests.get(f"{self.url}/{path}", auth=user, headers=headers, timeout=60)

    def add_user(self, user: User) -> None:
        """One who is no administrator."""
        created = requests.post(
            f"{self.url}/api/2.0/mlflow/users/create",
            json=dict(zip(("username", "password"), user, strict=True)),
            auth=self.admin,
            timeout=60,
        )
        assert created.status_code == 200, created.text

    def variables(self, user: User | None) -> dict[str, str]:
        """The environment of a client."""
        names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
        kept = {name: value for name, value in os.environ.items() if name not in names}
        given = dict(zip(names, user, strict=True)) if user else {}
        return kept | {"MLFLOW_TRACKING_URI": self.url} | given

    def dump(self, *options: str) -> bytes:
        """The database, in PostgreSQL's own words."""
        return subprocess.run(
            [program("pg_dump"), "mlflow", *options],
            env=os.environ | self.environment,
            capture_output=True,
            check=True,
        ).stdout

    def objects(self) -> dict[str, bytes]:
        """What lies in the bucket, by key."""
        store: Any = boto3.client(
            "s3",
            endpoint_url=self.environment["MLFLOW_S3_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return {key: store.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}


@contextmanager
def tracking_server(folder: Path) -> Iterator[TrackingServer]:
    """The server for the length of a block, with its log and secrets in ``folder``."""
    file = folder / "secrets.env"
    subprocess.run([INFRA / "secrets.sh", file], check=True)
    secrets = dict(line.split("=", 1) for line in file.read_text().splitlines())
    shipped = yaml.safe_load((INFRA / "compose.yaml").read_text())["services"]["mlflow"]
    environment = {
        name: re.sub(r"\$\{(\w+):\?.*?\}", lambda found: secrets[found[1]], value)
        for name, value in shipped["environment"].items()
    }
    port = free_port()
    here = {"--host": "127.0.0.1", "--port": str(port)}
    command = [
        re.sub(r"^(--host|--port)=.*", lambda found: f"{found[1]}={here[found[1]]}", part)
        for part in shipped["command"]
    ]
    data = Path("/var/tmp") / f"tandem-postgres-{os.getpid()}"  # pytest's folders are root's alone
    with object_store(BUCKET) as store, postgres(data, secrets["POSTGRES_PASSWORD"]) as database:
        environment |= database | {
            "MLFLOW_S3_ENDPOINT_URL": store,
            "MLFLOW_AUTH_CONFIG_PATH": str(INFRA / "kubernetes" / "base" / "basic_auth.ini"),
        }
        log = folder / "log"
        started = TrackingServer(f"http://127.0.0.1:{port}", secrets, environment, log)
        with running(
            [sys.executable, "-m", *command], log, cwd=folder, env=os.environ | environment
        ):
            deadline = time.monotonic() + SECONDS_TO_START
            while not _is_healthy(started.url):
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            started.add_user(STEPS)
            started.add_user(READER)
            yield started


def _is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).status_code == 200
    except requests.ConnectionError:
        return False
