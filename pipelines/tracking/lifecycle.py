"""Runs from their creation to their end."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from pipelines.config import Config
from pipelines.errors import InputError, PreemptedError
from pipelines.runs import KIND_TAG, STUDY_TAG, RunKind
from pipelines.tracking.connection import connect
from pipelines.tracking.experiments import ensure_experiment, require_store
from pipelines.tracking.log import send_params

__all__ = ["create_run", "delete_runs", "ended_if_failed", "finish_run", "require_run"]

_COLOUR_TAG = "mlflow.runColor"


def create_run(
    config: Config,
    name: str,
    kind: RunKind,
    study_id: str,
    params: Mapping[str, object],
    *,
    colour: str | None = None,
    more_tags: Mapping[str, str] | None = None,
) -> str:
    """Open a run and return its id; whoever finishes it is the caller's affair.

    With ``colour`` (``#RRGGBB``) the UI draws it so, instead of in one of its own.
    """
    tags = {KIND_TAG: kind, STUDY_TAG: study_id, **(more_tags or {})}
    if colour is not None:
        tags[_COLOUR_TAG] = colour
    client = connect(config)
    run = client.create_run(ensure_experiment(config, client), run_name=name, tags=tags)
    send_params(client, run.info.run_id, params)
    return str(run.info.run_id)


def delete_runs(config: Config, run_ids: Iterable[str]) -> None:
    """Delete runs in MLflow's sense: gone from lists and charts, and restorable."""
    for run_id in run_ids:
        connect(config).delete_run(run_id)


def require_run(config: Config, run_id: str) -> None:
    """Refuse to go on with a run that the store does not have.

    Raises:
        InputError: naming the store.
    """
    from mlflow.exceptions import MlflowException

    require_store(config)
    try:
        connect(config, briefly=True).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"tracking.uri: {config.shown_tracking_uri} has no run {run_id}; name the store that "
            "the run began in"
        ) from None


def finish_run(config: Config, run_id: str, status: str) -> None:
    """End a run with MLflow's word for how it ended, unless it has ended already."""
    client = connect(config)
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_terminated(run_id, status)


@contextmanager
def ended_if_failed(config: Config, run_id: str) -> Iterator[None]:
    """End a run as KILLED or FAILED if the block is interrupted or fails."""
    try:
        yield
    except BaseException as error:
        killed = isinstance(error, KeyboardInterrupt | PreemptedError)
        finish_run(config, run_id, "KILLED" if killed else "FAILED")
        raise
