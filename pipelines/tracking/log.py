"""What is written to a run: metrics, tags, curves, files, the dataset."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.ingest.dataset import Dataset
from pipelines.tracking.connection import Connection, connect

__all__ = [
    "log_curves",
    "log_dataset",
    "log_files",
    "log_metrics",
    "send_params",
    "send_points",
]

_METRICS_PER_REQUEST = 1000


def log_metrics(
    config: Config,
    run_id: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str] | None = None,
    *,
    step: int = 0,
    seconds: float | None = None,
) -> None:
    """Log single values, and tags, to a run; of a moment in seconds since the epoch, or now."""
    from mlflow.entities import Metric, RunTag

    moment = int((time.time() if seconds is None else seconds) * 1000)
    connect(config).log_batch(
        run_id,
        metrics=[Metric(name, value, moment, step) for name, value in metrics.items()],
        tags=[RunTag(name, value) for name, value in (tags or {}).items()],
    )


def log_curves(config: Config, run_id: str, points: Mapping[int, Mapping[str, float]]) -> None:
    """Log metrics at several steps: step -> metric -> value."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, step)
        for step, values in sorted(points.items())
        for name, value in values.items()
    ]
    send_points(connect(config), run_id, metrics)


def log_dataset(config: Config, run_id: str, dataset: Dataset) -> None:
    """Log a dataset as a run's input, with its fingerprint as the digest."""
    from mlflow import entities

    manifest = dataset.manifest
    logged = entities.Dataset(
        name=manifest.source["name"],
        digest=manifest.fingerprint[:36],  # MLflow's limit
        source_type="local",
        source=str(dataset.folder),
    )
    training = entities.InputTag("mlflow.data.context", "training")
    connect(config).log_inputs(run_id, [entities.DatasetInput(logged, [training])])


def log_files(config: Config, run_id: str, files: Iterable[Path]) -> None:
    """Keep files as a run's artifacts."""
    for file in files:
        connect(config).log_artifact(run_id, str(file))


def send_points(client: Connection, run_id: str, metrics: Sequence[Any]) -> None:
    """Send MLflow's ``Metric`` values, in as many requests as they need."""
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def send_params(client: Connection, run_id: str, params: Mapping[str, object]) -> None:
    """Send parameters, as text."""
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
