"""The services that the tracking server stands on, as processes: PostgreSQL, and moto's S3."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["free_port", "object_store", "postgres", "program", "running"]

_SECONDS_TO_START = 60.0
_SECONDS_TO_END = 20.0


def program(name: str) -> str:
    """One of PostgreSQL's, which Debian keeps off the PATH; skips where there is none."""
    folders = [os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    found = shutil.which(name, path=os.pathsep.join(folders))
    if found is None:
        pytest.skip(f"no {name} here (Debian: apt-get install postgresql)")
    return found


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[None]:
    """A process for the length of a block, with what it prints in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def postgres(folder: Path, password: str) -> Iterator[dict[str, str]]:
    """PostgreSQL with the image's user and database; the variables that lead to it.

    ``folder`` is made, and removed at the end. Root starts it as nobody, since it refuses root.
    """
    initdb, server, createdb = program("initdb"), program("postgres"), program("createdb")
    variables = {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(free_port()),
        "PGUSER": "mlflow",
        "PGPASSWORD": password,
    }
    user: dict[str, Any] = {}
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(folder, "nobody", "nogroup")
    try:
        given = folder / "password"
        given.write_text(password)
        if user:
            shutil.chown(given, "nobody", "nogroup")
        options = ["-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={given}"]
        made = subprocess.run(
            [initdb, "-D", folder / "data", *options],
            capture_output=True,
            text=True,
            cwd=folder,
            **user,
        )
        assert made.returncode == 0, made.stderr
        given.unlink()
        log = folder / "log"
        command = [server, "-D", str(folder / "data"), "-k", str(folder), "-h", "127.0.0.1"]
        with running([*command, "-p", variables["PGPORT"]], log, cwd=folder, **user):
            _until_done([createdb, "mlflow"], variables, log)
            yield variables
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _until_done(command: list[str], variables: Mapping[str, str], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS_TO_START
    while subprocess.run(command, env={**os.environ, **variables}, capture_output=True).returncode:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@contextmanager
def object_store(bucket: str) -> Iterator[str]:
    """An S3 server in this process, with a bucket; its URL."""
    import boto3

    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
        client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=bucket)
        yield url
    finally:
        server.stop()
