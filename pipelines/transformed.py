"""What a framework's own transform wrote, for training with ``data.reader: native``."""

import hashlib
import json
import secrets
import shutil
from pathlib import Path

from pipelines.cluster_config import ClusterConfig
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT, find_python, installed_digest
from pipelines.errors import InputError
from pipelines.hardware import available_cores
from pipelines.ingest.dataset import Dataset
from pipelines.launch import launch
from pipelines.parity.software import code_digest
from pipelines.strategies import Framework
from pipelines.workloads import get_workload

__all__ = ["transformed_examples"]

_NOTE = "made_of.json"


def transformed_examples(config: Config, dataset: Dataset, framework: Framework) -> Path | None:
    """Their folder, made on first use; None under ``reader: shared``.

    It is named after all that they are made of, which ``made_of.json`` in it tells.

    Raises:
        WorkError: if the framework's transform failed, with its last lines; its log is kept.
        InputError: if the folder holds something else.
    """
    if config.data.reader == "shared":
        return None
    made_of = _made_of(config, dataset, framework)
    name = f"{framework}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
    folder = config.output / "transformed" / name
    if not folder.exists():
        # One of its own: on a cluster cells may run at once, each in a step that finds none.
        temporary = folder.with_name(f".{name}.{secrets.token_hex(4)}.writing")
        temporary.mkdir(parents=True)
        resolved = config.dump(temporary / "config.yaml")
        cluster = ClusterConfig.of_this_step()
        arguments = ["transform", "--config", str(resolved), "--output", str(temporary)]
        launch(
            framework,
            arguments,
            logs=temporary / "logs",
            threads_per_worker=cluster.threads_per_worker if cluster else len(available_cores()),
            environment=config.child_variables,
        )
        (temporary / _NOTE).write_text(made_of)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(temporary)  # another's was there first, and is the same
    _require(folder / _NOTE, made_of)
    return folder


def _made_of(config: Config, dataset: Dataset, framework: Framework) -> str:
    """All that a framework's transform of a dataset depends on, as JSON."""
    workload = get_workload(config, dataset.manifest)
    cluster = ClusterConfig.of_this_step()
    made_of = {
        "fingerprint": dataset.manifest.fingerprint,
        "workload": workload.name,
        "transform": workload.transform_config(),
        "code_sha256": code_digest(PROJECT_ROOT, ("pipelines", f"{framework}_pipeline")),
        # A step of a pipeline has no framework beside it: its image is all that is known of it.
        "software": cluster.image(framework)
        if cluster
        else installed_digest(find_python(framework)),
    }
    return json.dumps(made_of, indent=2, sort_keys=True) + "\n"


def _require(note: Path, made_of: str) -> None:
    if not note.is_file() or note.read_text() != made_of:
        raise InputError(
            f"{note}: the examples beside it were made of other data or by other settings; remove "
            f"{note.parent}, and they are made anew"
        )
