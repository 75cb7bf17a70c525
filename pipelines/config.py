"""The configuration: one YAML file describes one comparable study, and nothing else.

Every field has a default or a clear error; an unknown key is an error. A command's
``--set section.field=value`` is applied on top of the file before anything is checked.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from pipelines.checkpoint_config import CheckpointConfig
from pipelines.cluster_config import ClusterConfig
from pipelines.data_config import DataConfig, Section
from pipelines.errors import InputError
from pipelines.network_config import NetworkConfig
from pipelines.parity_config import ParityConfig
from pipelines.scorecard_config import ScorecardConfig
from pipelines.secrets import shown
from pipelines.strategies import SINGLE_WORKER_STRATEGIES, Framework
from pipelines.strategy_config import TfConfig, TorchConfig
from pipelines.study_config import StudyConfig
from pipelines.workload_config import WorkloadConfig
from pipelines.yaml_file import parse_yaml, read_mapping, validated

__all__ = ["Config", "load_config", "parse_config"]

ShareOfOne = Annotated[float, Field(ge=0, lt=1)]

_TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"


def _not_a_folder(uri: str) -> str:
    if "://" not in uri or uri.startswith("file:"):
        raise ValueError(
            "must be a database or a server, such as sqlite:///out/mlflow.db or http://HOST:5000 "
            f"(MLflow no longer writes to folders), not {uri!r}"
        )
    return uri


class OptimizerConfig(Section):
    """The optimiser, equal on both sides."""

    name: Literal["sgd", "momentum", "adam", "adamw"] = "adamw"
    """``sgd``; ``momentum``: heavy-ball SGD (Polyak, 1964); ``adam`` (Kingma & Ba, 2015);
    ``adamw``: Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""
    learning_rate: PositiveFloat = 1e-3
    """Step size; the schedule's peak."""
    momentum: ShareOfOne = 0.9
    """``momentum``: share of the last update that is kept."""
    beta1: ShareOfOne = 0.9
    """``adam``, ``adamw``: decay of the gradient's mean."""
    beta2: ShareOfOne = 0.999
    """``adam``, ``adamw``: decay of the squared gradient's mean."""
    epsilon: PositiveFloat = 1e-8
    """``adam``, ``adamw``: added to the root of the bias-corrected mean square."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """``adamw``: decoupled decay per unit of learning rate; parameters of one dimension (biases,
    normalisations) are exempt."""
    clip_norm: PositiveFloat | None = None
    """Greatest norm of the gradient over all parameters and workers; null: no clipping."""

    @model_validator(mode="after")
    def _decays_where_it_can(self) -> Self:
        if self.weight_decay and self.name != "adamw":
            raise ValueError(f"weight_decay is adamw's; {self.name} has none")
        return self


class ScheduleConfig(Section):
    """The learning rate over the steps."""

    name: Literal["constant", "cosine"] = "constant"
    """After the warm-up: ``constant``, or half a ``cosine`` (Loshchilov & Hutter, 2017)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """First steps, over which the learning rate grows linearly to its peak."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """``cosine``: share of the peak that the last step comes down to."""


class TrainingConfig(Section):
    """How it is trained."""

    batch_size_per_worker: PositiveInt = 64
    """Examples per worker and step, under weak scaling."""
    gradient_accumulation: PositiveInt = 1
    """Equal parts into which a worker's batch is cut, their gradients averaged before the step."""
    steps: PositiveInt = 200
    """Optimiser steps, warm-up included."""
    warmup_steps: PositiveInt = 20
    """First steps left out of every speed figure (tracing, caches, allocators)."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """``bfloat16``, ``float16``: mixed, with float32 weights; ``float16`` scales the loss and needs
    a GPU. ``float64``: throughout, for proofs."""
    compile: Literal["none", "default"] = "none"
    """``default``: the network through XLA (``jit_compile``) and through ``torch.compile``."""
    activation_checkpointing: bool = False
    """Whether the activations inside a network's blocks are computed again for the gradient
    instead of being kept (Chen et al., 2016): less memory, about a third more arithmetic."""
    device: Literal["auto", "cpu"] = "auto"
    """``cpu`` hides GPUs from both frameworks; ``auto`` leaves each what it finds."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the initial weights and the order of the examples."""

    @model_validator(mode="after")
    def _leaves_steps_to_time(self) -> Self:
        if self.steps <= self.warmup_steps:
            raise ValueError(
                f"steps ({self.steps}) must exceed warmup_steps ({self.warmup_steps}), "
                "or nothing is left to time"
            )
        if self.batch_size_per_worker % self.gradient_accumulation:
            raise ValueError(
                f"batch_size_per_worker ({self.batch_size_per_worker}) must be a multiple of "
                f"gradient_accumulation ({self.gradient_accumulation})"
            )
        return self


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: Annotated[str, AfterValidator(_not_a_folder)] | None = None
    """MLflow tracking URI; by default ``MLFLOW_TRACKING_URI``, else
    ``sqlite:///<output>/mlflow.db``. May hold a password, so it is never written down."""


class Config(Section):
    """One comparable study."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The study's name, which is also the MLflow experiment's."""
    output: Path = Path("out")
    """Folder for all that is written: dataset, pipelines, logs, tracking store, report."""
    workload: WorkloadConfig = WorkloadConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tf: TfConfig = TfConfig()
    torch: TorchConfig = TorchConfig()
    study: StudyConfig = StudyConfig()
    network: NetworkConfig = NetworkConfig()
    parity: ParityConfig = ParityConfig()
    scorecard: ScorecardConfig = ScorecardConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def dataset_dir(self) -> Path:
        """Folder of the ingested dataset."""
        return self.data.output or self.output / "data"

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking URI."""
        default = f"sqlite:///{self.output / 'mlflow.db'}"
        return self.tracking.uri or os.environ.get(_TRACKING_VARIABLE) or default

    @property
    def given_tracking_uri(self) -> str | None:
        """The tracking URI, if it is not the default and can be shown as it is."""
        given = self.tracking.uri or os.environ.get(_TRACKING_VARIABLE)
        return given if given and self.shown_tracking_uri == given else None

    @property
    def shown_tracking_uri(self) -> str:
        """The tracking URI without its credentials, fit for a message."""
        return re.sub(r"//[^/@]*@", "//***@", self.tracking_uri)

    @property
    def child_variables(self) -> dict[str, str]:
        """What child processes find in their environment: the store, and whether to see GPUs."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.training.device == "cpu" else {}
        return {_TRACKING_VARIABLE: self.tracking_uri, **hidden}

    def strategy(self, framework: Framework) -> str:
        """The strategy that the named framework trains with."""
        return self.tf.strategy if framework == "tf" else self.torch.strategy

    def strategies(self, framework: Framework) -> list[str]:
        """The strategies that the study measures of the named framework."""
        several = self.study.strategies
        asked = several.tf if framework == "tf" else several.torch
        return [self.strategy(framework)] if asked is None else [*asked]

    def strategy_options(self, framework: Framework) -> str:
        """What of that strategy's options is not as it is by default, as JSON."""
        return (self.tf if framework == "tf" else self.torch).strategy_options()

    def global_batch_size(self, workers: int) -> int:
        """Examples in one optimiser step over all workers."""
        return self.training.batch_size_per_worker * workers

    @property
    def strong_batch_size(self) -> int:
        """Examples in one optimiser step of every cell of strong scaling."""
        return self.study.global_batch_size or self.global_batch_size(min(self.study.workers))

    def digest(self) -> str:
        """SHA-256 of the resolved configuration, so that two runs can be told to share it."""
        canonical = json.dumps(self.without_secrets(), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def dump(self, path: Path) -> Path:
        """Write the resolved configuration, for child processes and for the record."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(self.without_secrets(), sort_keys=False))
        return path

    def without_secrets(self) -> dict[str, Any]:
        """The configuration as plain values, less where it is tracked and any URL's credentials."""
        values = self.model_dump(mode="json", exclude={"tracking"})
        data = values["data"]
        if data["path"] is not None:
            paths = data["path"]
            data["path"] = shown(paths) if isinstance(paths, str) else [*map(shown, paths)]
        data["runner"]["options"] = [*map(shown, data["runner"]["options"])]
        return values

    def for_steps(self) -> dict[str, Any]:
        """What a DAG's steps need of it, as plain values; KFP knows no null."""
        return self.model_dump(
            mode="json",
            include={"name", "workload", "training", "tf", "torch"},
            exclude_none=True,
        )

    @model_validator(mode="after")
    def _strategies_can_scale(self) -> Self:
        if max(self.study.workers) > 1:
            for framework in ("tf", "torch"):
                for strategy in self.strategies(framework):
                    if strategy in SINGLE_WORKER_STRATEGIES:
                        raise ValueError(
                            f"{framework}.strategy '{strategy}' runs one worker, "
                            f"but study.workers asks for {max(self.study.workers)}"
                        )
        return self

    @model_validator(mode="after")
    def _strong_batch_can_be_shared(self) -> Self:
        if "strong" not in self.study.scaling:
            return self
        parts = self.training.gradient_accumulation
        for workers in self.study.workers:
            if self.strong_batch_size % (workers * parts):
                accumulated = f" in {parts} parts each (training.gradient_accumulation)"
                raise ValueError(
                    f"study.global_batch_size: {workers} workers cannot share "
                    f"{self.strong_batch_size} examples equally{accumulated if parts > 1 else ''}"
                )
        return self


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read and check a configuration file.

    ``overrides`` are ``section.field=value`` strings, their values parsed as YAML.

    Raises:
        InputError: with one line that names the file, the field and the mend.
    """
    raw = read_mapping(path, "shipped configs are in configs/", "name: quickstart")
    for override in overrides or []:
        _apply_override(raw, override)
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], origin: str) -> Config:
    """Check a configuration that is already a mapping; ``origin`` names it in errors."""
    return validated(Config, raw, origin)


def _apply_override(raw: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise InputError(f"--set {override}: must read section.field=value")
    try:
        value = parse_yaml(text)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {override}: the value is not valid YAML") from None
    section = raw
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise InputError(f"--set {override}: '{key}' is not a section")
    section[keys[-1]] = value
