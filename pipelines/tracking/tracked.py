"""The run that a training process belongs to, on every rank."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.errors import WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.run_folder import RunFolder
from pipelines.runs import PREEMPTED_TAG, RESUMED_TAG, RunKind, comparable_fields
from pipelines.tracking.connection import connect, quieten
from pipelines.tracking.lifecycle import create_run, finish_run
from pipelines.tracking.log import log_dataset, log_metrics, send_params, send_points
from pipelines.worker import Worker

__all__ = ["RUN_ID_VARIABLE", "SYSTEM_METRICS_SECONDS", "TrackedRun", "tracked_run"]

RUN_ID_VARIABLE = "MLFLOW_RUN_ID"
SYSTEM_METRICS_SECONDS = 5.0
"""A sample takes 13 ms of the worker's core, most of it for asking after the run and writing to the
store: every two seconds that is 0.65 % of training (docs/methodology.md)."""

_BEGUN = "software_build"
"""Recorded by workers alone, so a run that has it was begun before."""


class TrackedRun:
    """The run that this process belongs to; on any rank but 0 its methods do nothing."""

    def __init__(self, config: Config, run_id: str, worker: Worker) -> None:
        self.run_id = run_id
        self.status_at_end = "FINISHED"
        self._config = config
        self._worker = worker

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; of a run that goes on, those that differ now are kept in a tag.

        Raises:
            WorkError: if a run that begins is not what its launcher recorded it to be.
        """
        if not self._worker.is_chief:
            return
        client = connect(self._config)
        known = client.get_run(self.run_id).data.params
        new = {name: value for name, value in params.items() if name not in known}
        send_params(client, self.run_id, new)
        differing = {
            name: str(value)
            for name, value in params.items()
            if name in known and known[name] != str(value)
        }
        if differing and _BEGUN not in known:
            _refuse_other_work(known, differing)
        if differing:
            client.set_tag(self.run_id, RESUMED_TAG, json.dumps(differing))

    def end_preempted(self, step: int) -> None:
        """Note after which step the run was asked to end, which it then has not ended well."""
        self.status_at_end = "KILLED"
        if self._worker.is_chief:
            connect(self._config).set_tag(self.run_id, PREEMPTED_TAG, str(step))

    def log_config(self) -> None:
        """Keep the resolved configuration as the run's artifact."""
        if self._worker.is_chief:
            resolved = self._config.without_secrets()
            connect(self._config).log_dict(self.run_id, resolved, "config.yaml")

    def log_dataset(self, dataset: Dataset) -> None:
        """Log the dataset as the run's input."""
        if self._worker.is_chief:
            log_dataset(self._config, self.run_id, dataset)

    def log_metrics(
        self, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """Log single values, and tags."""
        if self._worker.is_chief:
            log_metrics(self._config, self.run_id, metrics, tags)

    def log_json(self, name: str, content: Any) -> None:
        """Keep JSON values as an artifact of that name."""
        if self._worker.is_chief:
            text = json.dumps(content, indent=2) + "\n"
            connect(self._config).log_text(self.run_id, text, name)

    def log_series(self, name: str, values: Iterable[float]) -> None:
        """Log one value per step, the first at step 1; what an earlier attempt logged stays."""
        from mlflow.entities import Metric

        if not self._worker.is_chief:
            return
        now = int(time.time() * 1000)
        logged = connect(self._config).get_metric_history(self.run_id, name)
        last = max((point.step for point in logged), default=0)
        points = [
            Metric(name, value, now, step)
            for step, value in enumerate(values, start=1)
            if step > last
        ]
        send_points(connect(self._config), self.run_id, points)


@contextmanager
def tracked_run(
    config: Config,
    worker: Worker,
    cell: Cell,
    study_id: str,
    params: Mapping[str, object],
    folder: Path,
) -> Iterator[TrackedRun]:
    """This process's part in a training run, ended with the outcome of the block.

    The run is the one that ``MLFLOW_RUN_ID`` names, else the one that ``folder`` holds since an
    earlier attempt, else rank 0 creates it: a cell of the study ``study_id``, if that is not empty.
    System metrics are recorded meanwhile.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    quieten()
    held = RunFolder.find(folder)
    run_id = os.environ.get(RUN_ID_VARIABLE, "") or (held.run_id if held else "")
    if worker.is_chief:
        if run_id:  # a restarted job goes on with its run, which may have ended as failed
            connect(config).update_run(run_id, status="RUNNING")
        else:
            kind: RunKind = "cell" if study_id else "train"
            run_id = create_run(config, cell.name, kind, study_id, params)
        store = held.tracking_uri if held else config.given_tracking_uri
        RunFolder.of(run_id, cell, study_id, store).write(folder)
    run = TrackedRun(config, run_id, worker)
    monitor = None
    if run_id:
        monitor = SystemMetricsMonitor(
            run_id,
            sampling_interval=SYSTEM_METRICS_SECONDS,
            node_id=f"rank_{worker.rank}",
            tracking_uri=config.tracking_uri,
        )
        monitor.start()
    status = "FAILED"
    try:
        yield run
        status = run.status_at_end
    finally:
        if monitor is not None:
            monitor.finish()
        if run_id and worker.is_chief:
            finish_run(config, run_id, status)


def _refuse_other_work(known: Mapping[str, str], differing: Mapping[str, str]) -> None:
    """Refuse to measure one thing under the name of another, which would then be compared."""
    for field in comparable_fields(known.get("scaling", "")):
        if field in differing:
            raise WorkError(
                f"{field} is '{differing[field]}' here, and its launcher has recorded it as "
                f"'{known[field]}'; begin the run again with the same code, settings and machine "
                "for both"
            )
