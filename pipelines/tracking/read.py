"""What is read back: a study's runs, and their artifacts."""

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.runs import RunRecord
from pipelines.secrets import shown
from pipelines.tracking.connection import connect
from pipelines.tracking.experiments import known_experiments, require_store

__all__ = ["read_file", "read_runs"]


def read_runs(config: Config) -> list[RunRecord]:
    """All runs of the study's experiment, oldest first.

    Raises:
        InputError: if the store has no such experiment.
    """
    require_store(config)
    client = connect(config, briefly=True)
    experiment = client.get_experiment_by_name(config.name)
    if experiment is None:
        raise InputError(
            f"--study {config.name}: {config.shown_tracking_uri} has no such study; "
            f"it has: {known_experiments(client)}"
        )
    records: list[RunRecord] = []
    token: str | None = None
    with _reading_much():
        while token != "":
            page = client.search_runs(
                [experiment.experiment_id], order_by=["start_time ASC"], page_token=token
            )
            records += map(_record, page)
            token = page.token or ""
    return records


def read_file(config: Config, run_id: str, name: str) -> str | None:
    """The text of one of a run's artifacts; None if the run has none of that name.

    Raises:
        WorkError: if it has, and the store does not give it.
    """
    from mlflow.exceptions import MlflowException

    client = connect(config, briefly=True)
    if name not in {file.path for file in client.list_artifacts(run_id)}:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_text()
    except (MlflowException, OSError) as error:
        raise WorkError(
            f"tracking.uri: {config.shown_tracking_uri} has {name} of run {run_id}, and does not "
            f"give it ({shown(str(error))})"
        ) from None


def _record(run: Any) -> RunRecord:
    return RunRecord(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        start_time=run.info.start_time / 1000,
        params=run.data.params,
        tags=run.data.tags,
        metrics=run.data.metrics,
        experiment_id=run.info.experiment_id,
    )


@contextmanager
def _reading_much() -> Iterator[None]:
    """Reading thousands of runs without what only objects that live on are in need of.

    Half of the time went into the garbage collector, which finds nothing among a page's many small
    objects, and a quarter of the rest into SQLAlchemy's marking each of them as out of date at the
    end of MLflow's session.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    def leave_unmarked(session: Session, *_: object) -> None:
        session.expire_on_commit = False

    was_on = gc.isenabled()
    gc.disable()
    event.listen(Session, "after_begin", leave_unmarked)
    try:
        yield
    finally:
        event.remove(Session, "after_begin", leave_unmarked)
        if was_on:
            gc.enable()
