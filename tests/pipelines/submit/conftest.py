"""Published schemas made strict, and the shipped configurations as pods have them."""

import gzip
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
        "ownerReferences": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["apiVersion", "kind", "name", "uid"],
                "properties": {
                    name: {"type": "string"} for name in ("apiVersion", "kind", "name", "uid")
                },
            },
        },
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
        text = gzip.decompress((SCHEMAS / f"{name}.yaml.gz").read_bytes())
        crd = yaml.load(text, yaml.CSafeLoader)
        [version] = crd["spec"]["versions"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = METADATA
        api = f"{crd['spec']['group']}/{version['name']}"
        schema["properties"]["apiVersion"] = {"const": api}
        validators[kind] = jsonschema.Draft202012Validator(schema)

    def validate(job: dict[str, Any]) -> None:
        validators[job["kind"]].validate(job)

    return validate


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
