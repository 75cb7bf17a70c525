"""What the frameworks' DAGs share: their stages, their surroundings, and what they report.

Each framework has components of its own; the five stages are what they have in common, and what
the comparison is about.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT, installed_digest
from pipelines.errors import WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.parity.software import code_digest
from pipelines.whole_file import write_whole

__all__ = ["RESULT_NAME", "STAGES", "DagEnvironment", "PipelineResult", "Stage", "cache_key"]

Stage = Literal["validate", "transform", "train", "evaluate", "push"]
STAGES: tuple[Stage, ...] = ("validate", "transform", "train", "evaluate", "push")

RESULT_NAME = "pipeline_result.json"


@dataclass(frozen=True)
class DagEnvironment:
    """What a runner adds to a DAG: where things are, and nothing else."""

    dataset: str
    """Folder of the ingested dataset."""
    artifacts: str
    """Folder for what components hand to each other."""
    serving: str
    """Folder in which blessed models are published."""
    image: str = "python:3.11-slim"
    """Container image of the steps, where steps are containers."""
    workers: int = 1
    """Workers that the training step trains on."""
    cache_key: str = ""
    """Changes when a cached step must not be reused; empty where nothing is cached by it."""

    @classmethod
    def local(
        cls, package: str, config: Config, output: Path, workers: int = 1
    ) -> "DagEnvironment":
        """Everything in folders of this machine: artifacts and models under ``output``.

        ``package`` is the framework's, whose code the cache key covers.

        Raises:
            InputError: if the config's dataset has not been ingested.
        """
        output.mkdir(parents=True, exist_ok=True)
        dataset = Dataset.open(config.dataset_dir.resolve())
        return cls(
            dataset=str(dataset.folder),
            artifacts=str(output.resolve() / "artifacts"),
            serving=str(output.resolve() / "serving"),
            workers=workers,
            cache_key=cache_key(package, config, dataset.manifest.fingerprint, workers),
        )


class PipelineResult(BaseModel):
    """Written by the DAG's process, read and completed by the launcher."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    components: dict[str, float]
    """Component -> seconds, in the order in which they ran."""
    stages: dict[str, float]
    """Stage -> seconds, its components' added up."""
    cached: list[str]
    """Components answered from the cache."""
    blessed: bool
    metrics: dict[str, float]
    """What evaluation found, under the names of the metrics table."""
    pushed_to: str | None
    """Folder of the published model; None if it was not blessed."""
    processes: int
    """That the DAG's process started for its components."""
    work: dict[str, float] = {}
    """Component -> seconds of its own work, its imports done; cached ones do none. This and
    ``startup`` are the launcher's to add, which hears of them."""
    startup: dict[str, float] = {}
    """Component -> seconds from the orchestrator's starting it to its own work."""

    @classmethod
    def collect(
        cls,
        components: Mapping[str, float],
        stage_of: Mapping[str, Stage],
        *,
        cached: list[str],
        blessed: bool,
        metrics: Mapping[str, float],
        pushed_to: str | None,
        processes: int,
    ) -> "PipelineResult":
        """Add the components' seconds up by stage."""
        stages = dict.fromkeys(STAGES, 0.0)
        for component, seconds in components.items():
            stages[stage_of[component]] += seconds
        return cls(
            components=dict(components),
            stages={str(stage): seconds for stage, seconds in stages.items()},
            cached=cached,
            blessed=blessed,
            metrics=dict(metrics),
            pushed_to=pushed_to,
            processes=processes,
        )

    def write(self, folder: Path) -> None:
        """Write to the folder, where ``read`` finds it."""
        write_whole(folder / RESULT_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "PipelineResult":
        """Read what ``write`` wrote.

        Raises:
            WorkError: if nothing was written: the DAG ended without a result.
        """
        try:
            return cls.model_validate_json((folder / RESULT_NAME).read_bytes())
        except FileNotFoundError:
            raise WorkError(f"the DAG ended without a result in {folder}") from None


def cache_key(package: str, config: Config, fingerprint: str, workers: int = 1) -> str:
    """SHA-256 of all that a step's output depends on: data, settings, code, and what is installed.

    Code, because a cache that knows only data and settings answers for code that has changed; all
    of it that is shared, because a list of what a step imports would be out of date one day.
    Installed where this is called: in the process that runs the DAG.
    """
    asked = config.model_dump(mode="json", include={"workload", "training"})
    if workers > 1:  # one worker trains alike whatever strategy it would share its work by
        asked |= config.model_dump(mode="json", include={"tf", "torch"}) | {"workers": workers}
    parts = [
        fingerprint,
        asked,
        code_digest(PROJECT_ROOT, ("pipelines", package)),
        installed_digest(Path(sys.executable)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
