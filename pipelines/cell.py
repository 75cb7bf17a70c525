"""A cell of a study's matrix, and the parameters that every run of a study is compared by."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from pipelines.config import Config
from pipelines.hardware import describe_hardware
from pipelines.ingest.manifest import Manifest
from pipelines.parity.software import running_code
from pipelines.strategies import FIXED_WORKERS_STRATEGIES, FRAMEWORKS, Framework
from pipelines.workload_config import WorkloadConfig

__all__ = ["Cell", "cell_config", "cell_params", "run_identity", "study_params"]


@dataclass(frozen=True)
class Cell:
    """One training run, told apart from its study's others."""

    framework: Framework
    strategy: str
    workers: int
    scaling: str = "weak"
    repeat: int = 0

    @classmethod
    def of_params(cls, params: Mapping[str, str]) -> "Cell | None":
        """The cell that a run's parameters speak of, if they can be understood."""
        framework = params.get("framework")
        if framework not in FRAMEWORKS:
            return None
        try:
            workers, repeat = int(params["workers"]), int(params["repeat"])
            strategy, scaling = params["strategy"], params["scaling"]
        except (KeyError, ValueError):
            return None
        return cls(framework, strategy, workers, scaling, repeat) if workers > 0 else None

    @property
    def title(self) -> str:
        """What its repeats have in common: ``torch ddp x2``, or ``tf mirrored x4 strong``."""
        kind = "" if self.scaling == "weak" else f" {self.scaling}"
        return f"{self.framework} {self.strategy} x{self.workers}{kind}"

    @property
    def name(self) -> str:
        """The run's name in MLflow, such as ``torch ddp x2 #1``."""
        return f"{self.title} #{self.repeat + 1}"

    @property
    def slug(self) -> str:
        """The name of the cell's folder."""
        return f"{self.kind_slug}-r{self.repeat + 1}"

    @property
    def kind_slug(self) -> str:
        """What the folders of its repeats begin with."""
        return f"{self.framework}-{self.strategy}-{self.scaling}-x{self.workers}"


def cell_config(config: Config, cell: Cell) -> Config:
    """A study's configuration as one cell of it has it: its strategy, and its share of the batch.

    That of a cell's own configuration is the same again.
    """
    framework = getattr(config, cell.framework).model_copy(update={"strategy": cell.strategy})
    training, batch_size = config.training, None
    if cell.scaling == "strong":
        batch_size = config.strong_batch_size
        share = batch_size // cell.workers
        training = training.model_copy(update={"batch_size_per_worker": share})
    only = {
        "workers": [cell.workers],
        "scaling": [cell.scaling],
        "global_batch_size": batch_size,
        "strategies": config.study.strategies.model_copy(update={cell.framework: None}),
    }
    study = config.study.model_copy(update=only)
    changes = {cell.framework: framework, "training": training, "study": study}
    return config.model_copy(update=changes)


def study_params(config: Config, manifest: Manifest) -> dict[str, object]:
    """What must agree before any two runs of a study are compared, and what the study is."""
    training = config.training
    return {
        "study": config.name,
        "workload": _describe_workload(config.workload),
        "dataset_fingerprint": manifest.fingerprint,
        "dataset_rows": sum(shard.rows for shard in manifest.shards),
        "dataset_source": manifest.source["name"],
        "batch_size_per_worker": training.batch_size_per_worker,
        "gradient_accumulation": training.gradient_accumulation,
        "steps": training.steps,
        "warmup_steps": training.warmup_steps,
        "optimizer": training.optimizer.model_dump_json(),
        "schedule": training.schedule.model_dump_json(),
        "precision": training.precision,
        "compile": training.compile,
        "activation_checkpointing": training.activation_checkpointing,
        "seed": training.seed,
        "reader": config.data.reader,
        "threads_per_worker": config.study.threads_per_worker,
        "hardware": describe_hardware(),
        "network": config.network.describe(),
        "code_sha256": running_code(),
        "config_sha256": config.digest(),
    }


def cell_params(config: Config, manifest: Manifest, cell: Cell) -> dict[str, object]:
    """The study's parameters and the cell's own."""
    return {
        **study_params(config, manifest),
        "framework": cell.framework,
        "strategy": cell.strategy,
        "strategy_options": config.strategy_options(cell.framework),
        "workers": cell.workers,
        "scaling": cell.scaling,
        "repeat": cell.repeat,
        "global_batch_size": config.global_batch_size(cell.workers),
    }


def run_identity(config: Config, manifest: Manifest, cell: Cell) -> dict[str, str]:
    """What must stay as it was for a run to go on from a checkpoint.

    The number of workers may change where neither the batches nor the saved state depend on it;
    the global batch may not.
    """
    params = cell_params(config, manifest, cell)
    names = (
        *("framework", "strategy", "strategy_options", "workload", "dataset_fingerprint"),
        *("global_batch_size", "steps", "optimizer", "schedule", "precision", "seed", "reader"),
    )
    identity = {name: str(params[name]) for name in names}
    identity["shuffle_buffer"] = str(config.data.shuffle_buffer)
    if config.data.reader == "native" or cell.strategy in FIXED_WORKERS_STRATEGIES:
        identity["workers"] = str(cell.workers)
    return identity


def _describe_workload(config: WorkloadConfig) -> str:
    """Name and preset, and what of the preset was changed."""
    family: BaseModel = getattr(config, config.name)
    changes = family.model_dump(mode="json", exclude_defaults=True)
    title = f"{config.name}/{config.preset}"
    return f"{title} {json.dumps(changes)}" if changes else title
