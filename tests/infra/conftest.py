"""What kustomize makes of infra/kubernetes, the schemas to hold it to, and the tracking server."""

import gzip
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.environments import PROJECT_ROOT
from tests.infra.tracking_server import TrackingServer, tracking_server

KUBERNETES = PROJECT_ROOT / "infra" / "kubernetes"
SCHEMAS = PROJECT_ROOT.parent / "shared" / "schemas"

Resource = dict[str, Any]


def kustomize(folder: Path) -> list[Resource]:
    """The resources of a kustomization; skips where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here, whose kustomize builds the overlays")
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


@pytest.fixture(scope="session")
def build() -> Callable[[Path], list[Resource]]:
    """The resources of a kustomization."""
    return kustomize


@pytest.fixture(scope="session")
def resources() -> Callable[[str], list[Resource]]:
    """All resources of an overlay, made once."""
    return cache(lambda overlay: kustomize(KUBERNETES / "overlays" / overlay))


@pytest.fixture(scope="session")
def overlay_with(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, list[str]], list[Resource]]:
    """The resources of an overlay of the user's own, over a shipped one, with components."""

    def of(overlay: str, components: list[str]) -> list[Resource]:
        copy = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
        shutil.copytree(KUBERNETES, copy)
        own = copy / "overlays" / "own"
        own.mkdir()
        described = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{overlay}"],
            "components": [f"../../components/{name}" for name in components],
        }
        (own / "kustomization.yaml").write_text(yaml.safe_dump(described))
        return kustomize(own)

    return of


@pytest.fixture(scope="session")
def crd_schema() -> Callable[[str], Resource]:
    """The strict JSON Schema of a custom resource, by its plural name."""

    @cache
    def of(plural: str) -> Resource:
        published = SCHEMAS / f"{plural}.yaml.gz"
        if not published.exists():
            pytest.skip(f"the published schemas are not here ({published})")
        crd = yaml.safe_load(gzip.decompress(published.read_bytes()))
        schema = _strict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
                "namespace": {"type": "string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        }
        return schema

    return of


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """The tracking server as shipped, started once."""
    with tracking_server(tmp_path_factory.mktemp("mlflow")) as started:
        yield started


def _strict(schema: Any) -> Any:
    """Without fields that the schema does not name, where it names any."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: _strict(value) if key != "properties" else {n: _strict(v) for n, v in value.items()}
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-")
    }
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    if "properties" in made and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made
