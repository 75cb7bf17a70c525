"""MLflow: the only package that imports it.

One experiment per study; one flat run per cell, since nested runs stay collapsed in the UI and
leave its charts empty. Rank 0 alone writes parameters and learning metrics; every rank's system
metrics carry its rank. A run that was opened outside and named by ``MLFLOW_RUN_ID`` is continued.
A tracking server that does not answer is a ``WorkError``, whichever function asked it.
"""

from pipelines.tracking.experiments import (
    experiment_id,
    experiment_tags,
    new_study_id,
    prepare_store,
    tag_experiment,
)
from pipelines.tracking.lifecycle import (
    create_run,
    delete_runs,
    ended_if_failed,
    finish_run,
    require_run,
)
from pipelines.tracking.log import log_curves, log_dataset, log_files, log_metrics
from pipelines.tracking.read import read_file, read_runs
from pipelines.tracking.tracked import RUN_ID_VARIABLE, TrackedRun, tracked_run

__all__ = [
    "RUN_ID_VARIABLE",
    "TrackedRun",
    "create_run",
    "delete_runs",
    "ended_if_failed",
    "experiment_id",
    "experiment_tags",
    "finish_run",
    "log_curves",
    "log_dataset",
    "log_files",
    "log_metrics",
    "new_study_id",
    "prepare_store",
    "read_file",
    "read_runs",
    "require_run",
    "tag_experiment",
    "tracked_run",
]
