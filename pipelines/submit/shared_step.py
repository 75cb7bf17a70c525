"""A DAG's training step and its job's pods meet on the claim: a step's own files are its pod's."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.cluster_config import ClusterConfig

__all__ = ["StepFolders", "shared_with_job"]


@dataclass(frozen=True)
class StepFolders:
    """What a training step reads and writes."""

    config: Path
    """Folder for its configuration and logs."""
    transformed: Path
    transform_fn: Path
    output: Path


@contextmanager
def shared_with_job(cluster: ClusterConfig | None, folders: StepFolders) -> Iterator[StepFolders]:
    """Folders that the workers see too: the step's own, where they are its processes.

    On a cluster they are copies on the claim; what was written to the output is copied back, and
    the copies are removed.
    """
    if cluster is None:
        yield folders
        return
    place = Path(cluster.mount_path) / "tandem" / ".steps" / secrets.token_hex(6)
    shared = StepFolders(
        config=place,
        transformed=place / "transformed",
        transform_fn=place / "transform_fn",
        output=place / "output",
    )
    place.mkdir(parents=True)
    try:
        shutil.copytree(folders.transformed, shared.transformed)
        shutil.copytree(folders.transform_fn, shared.transform_fn)
        yield shared
        shutil.copytree(shared.output, folders.output, dirs_exist_ok=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
