"""The workloads: what is trained, stated once for both frameworks."""

from collections.abc import Mapping
from dataclasses import replace

from pipelines.config import WorkloadConfig
from pipelines.errors import InputError
from pipelines.workloads import vision
from pipelines.workloads.vision import Vision

__all__ = ["Vision", "get_workload"]

_PRESETS: Mapping[str, Mapping[str, Vision]] = {"vision": vision.PRESETS}


def get_workload(config: WorkloadConfig) -> Vision:
    """The configured workload, with the config's own thresholds over the workload's.

    Raises:
        InputError: if a threshold names a metric that the workload is not judged by.
    """
    workload = _PRESETS[config.name][config.preset]
    unknown = set(config.thresholds) - set(workload.thresholds)
    if unknown:
        raise InputError(
            f"workload.thresholds: {', '.join(sorted(unknown))} is no metric that {config.name} "
            f"is judged by; it has: {', '.join(workload.thresholds)}"
        )
    return replace(workload, thresholds={**workload.thresholds, **config.thresholds})
