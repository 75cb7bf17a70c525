"""Published schemas made strict, and small stand-ins for a cluster's servers."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.submit.submission import on_cluster

SCHEMAS = PROJECT_ROOT.parent / "shared" / "schemas"
CONFIGS = sorted((PROJECT_ROOT / "configs").glob("*.yaml"))
CRDS = {"TrainJob": "trainjobs", "PyTorchJob": "pytorchjobs", "TFJob": "tfjobs"}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 50},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def strict(schema: Any) -> Any:
    """A schema that forbids what it does not know."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {name: strict(value) for name, value in schema.items() if not name.startswith("x-")}
    closed = "properties" in schema and "additionalProperties" not in schema
    if closed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


@pytest.fixture(scope="session")
def validate_job() -> Callable[[dict[str, Any]], None]:
    """Holds a training job to its published CRD."""
    if not SCHEMAS.is_dir():
        pytest.skip(f"the published CRDs are not at {SCHEMAS}")
    validators = {}
    for kind, name in CRDS.items():
        crd = yaml.load(gzip.open(SCHEMAS / f"{name}.yaml.gz"), yaml.CSafeLoader)  # noqa: S506
        [version] = crd["spec"]["versions"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = METADATA
        api = f"{crd['spec']['group']}/{version['name']}"
        schema["properties"]["apiVersion"] = {"const": api}
        validators[kind] = jsonschema.Draft202012Validator(schema)

    def validate(job: dict[str, Any]) -> None:
        validators[job["kind"]].validate(job)

    return validate


@pytest.fixture(scope="session")
def swagger() -> dict[str, Any]:
    """The description of Kubeflow Pipelines' API, closed to what it does not name."""
    file = SCHEMAS / "kfp-2.16.1.swagger.json"
    if not file.exists():
        pytest.skip(f"the published API description is not at {file}")
    return strict(json.loads(file.read_text()))


def shipped_studies() -> list[Path]:
    """The shipped configurations; a table of prices, say, is none."""
    return [path for path in CONFIGS if "workload" in yaml.safe_load(path.read_text())]


@pytest.fixture
def load_submitted(load_quickstart: Callable[..., Config]) -> Callable[..., Config]:
    """The quickstart as pods have it."""

    def load(*overrides: str) -> Config:
        return on_cluster(load_quickstart(*overrides))

    return load


@pytest.fixture(scope="session")
def every_config() -> dict[str, Config]:
    """Every shipped study, as pods have it."""
    return {path.stem: on_cluster(load_config(path)) for path in shipped_studies()}
