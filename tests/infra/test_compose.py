"""The same tracking server for one machine."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipelines
from pipelines.environments import PROJECT_ROOT

INFRA = PROJECT_ROOT / "infra"
COMPOSE = INFRA / "compose.yaml"

Resources = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_it_fits_the_compose_specification() -> None:
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, COMPOSE], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_every_secret_is_asked_for_and_comes_from_the_file_that_secrets_sh_makes(
    tmp_path: Path,
) -> None:
    file = tmp_path / "secrets.env"
    subprocess.run([INFRA / "secrets.sh", file], check=True, capture_output=True)
    made = dict(line.split("=", 1) for line in file.read_text().splitlines())

    text = COMPOSE.read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == set(made)
    assert len(re.findall(r"\$\{", text)) == len(re.findall(r"\$\{\w+:\?", text))
    for name, value in made.items():
        assert re.fullmatch(r"\w+", value), name
    assert file.stat().st_mode & 0o077 == 0
    passwords = [value for value in made.values() if len(value) > 20]
    assert len(set(passwords)) == len(passwords) == 4


def test_secrets_that_are_there_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("POSTGRES_PASSWORD=mine\n")
    again = subprocess.run([INFRA / "secrets.sh", file], capture_output=True, text=True)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert file.read_text() == "POSTGRES_PASSWORD=mine\n"


def test_it_is_the_clusters_tracking_server(services: dict[str, Any], resources: Resources) -> None:
    """Images, commands and variables are those of the manifests."""
    containers = {
        container["name"]: container
        for resource in resources("local")
        if resource["kind"] in ("Deployment", "StatefulSet")
        for container in resource["spec"]["template"]["spec"]["containers"]
    }
    assert set(services) == set(containers)
    for name, service in services.items():
        container = containers[name]
        assert service["image"] == container["image"]
        command = [*service.get("entrypoint", []), *service.get("command", [])]
        assert command == [*container.get("command", []), *container.get("args", [])]
        given = {each["name"]: each.get("value") for each in container["env"]}
        given.pop("PGDATA", None)  # where a volume's root may hold a lost+found
        assert set(service["environment"]) == set(given)
        for variable, value in service["environment"].items():
            assert value == given[variable] or (value.startswith("${") and given[variable] is None)


def test_only_mlflow_is_reachable_and_only_from_this_machine(services: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert ports == {"mlflow": ["127.0.0.1:5000:5000"], "postgres": [], "object-store": []}
    assert services["mlflow"]["image"] == f"tandem-core:{pipelines.__version__}"
    assert services["mlflow"]["read_only"] is True
