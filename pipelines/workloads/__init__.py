"""The workloads: what is trained, stated once for both frameworks."""

from collections.abc import Mapping

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest.manifest import Manifest
from pipelines.metrics import METRICS
from pipelines.workload_config import WorkloadConfig, WorkloadName
from pipelines.workloads.base import TARGET, Batch, TensorSpec, Weights, Workload
from pipelines.workloads.tabular import Tabular
from pipelines.workloads.text import Text
from pipelines.workloads.vision import Vision

__all__ = [
    "TARGET",
    "Batch",
    "Tabular",
    "TensorSpec",
    "Text",
    "Vision",
    "Weights",
    "Workload",
    "get_family",
    "get_thresholds",
    "get_workload",
    "meets_thresholds",
]

_FAMILIES: Mapping[WorkloadName, type[Workload]] = {
    "vision": Vision,
    "text": Text,
    "tabular": Tabular,
}


def get_workload(config: Config, manifest: Manifest) -> Workload:
    """The configured workload, fitted to a dataset.

    Raises:
        InputError: if the dataset cannot feed it, naming what it takes and what the dataset has;
            or if its activations cannot be computed again as ``activation_checkpointing`` asks.
    """
    workload = get_family(config.workload).build(config.workload, manifest)
    if config.training.activation_checkpointing and workload.not_recomputable:
        raise InputError(f"training.activation_checkpointing: {workload.not_recomputable}")
    return workload


def get_family(config: WorkloadConfig) -> type[Workload]:
    """The configured workload's class: what can be said of it without a dataset."""
    return _FAMILIES[config.name]


def get_thresholds(config: WorkloadConfig) -> dict[str, float]:
    """Metric -> what a model must reach to be blessed: the config's over the workload's own.

    Raises:
        InputError: if a threshold names a metric that the workload is not judged by.
    """
    family = get_family(config)
    unknown = set(config.thresholds) - set(family.metrics)
    if unknown:
        raise InputError(
            f"workload.thresholds: {', '.join(sorted(unknown))} is no metric that {config.name} "
            f"is judged by; it has: {', '.join(family.metrics)}"
        )
    return {**family.default_thresholds, **config.thresholds}


def meets_thresholds(metrics: Mapping[str, float], thresholds: Mapping[str, float]) -> bool:
    """Whether every metric is at least, or where less is better at most, its threshold."""
    return all(
        metrics[name] <= bound if METRICS[name].better == "less" else metrics[name] >= bound
        for name, bound in thresholds.items()
    )
