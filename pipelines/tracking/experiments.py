"""The store, and the study's experiment in it."""

import time
from typing import Any

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.tracking.connection import Connection, connect, database_file

__all__ = [
    "ensure_experiment",
    "experiment_id",
    "experiment_tags",
    "known_experiments",
    "new_study_id",
    "prepare_store",
    "require_store",
    "tag_experiment",
]

_KIND_OF_EXPERIMENT = "mlflow.experimentKind"
"""Tells MLflow's UI to open the experiment on its runs, not on its pages for language models."""


def new_study_id() -> str:
    """An identifier for one execution of a study; later ones sort after earlier ones."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def prepare_store(config: Config) -> str:
    """Make the store and the study's experiment ready; returns the experiment's id.

    Called once before workers start, so that they find both.
    """
    return ensure_experiment(config, connect(config, briefly=True))


def ensure_experiment(config: Config, client: Connection) -> str:
    """The id of the study's experiment, which is made if need be, with its store.

    Raises:
        InputError: if it was deleted.
    """
    from mlflow.exceptions import MlflowException

    experiment = _find_experiment(client, config)
    if experiment is not None:
        return str(experiment.experiment_id)
    # A server knows where its artifacts go; a local database has to be told.
    is_local = database_file(config) is not None
    location = (config.output / "artifacts").resolve().as_uri() if is_local else None
    try:
        return str(
            client.create_experiment(
                config.name,
                artifact_location=location,
                tags={_KIND_OF_EXPERIMENT: "custom_model_development"},
            )
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Another process has made it since.
    return str(_find_experiment(client, config).experiment_id)


def experiment_id(config: Config) -> str:
    """The id of the study's experiment.

    Raises:
        InputError: if nothing has been logged under the study's name.
    """
    return str(_require_experiment(config).experiment_id)


def experiment_tags(config: Config) -> dict[str, str]:
    """The tags of the study's experiment.

    Raises:
        InputError: if nothing has been logged under the study's name.
    """
    return dict(_require_experiment(config).tags)


def tag_experiment(config: Config, name: str, value: str) -> None:
    """Set a tag of the study's experiment, over the one that it may have.

    Raises:
        InputError: if nothing has been logged under the study's name.
    """
    connect(config).set_experiment_tag(experiment_id(config), name, value)


def require_store(config: Config) -> None:
    """Refuse to read from a database that is not there, which MLflow would create empty.

    Raises:
        InputError: naming the file.
    """
    file = database_file(config)
    if file is not None and not file.exists():
        raise InputError(f"{file}: no runs have been tracked here; make some with `tandem run`")


def known_experiments(client: Connection) -> str:
    """The names of a store's experiments, as a message lists them."""
    return ", ".join(sorted(found.name for found in client.search_experiments()))


def _require_experiment(config: Config) -> Any:
    require_store(config)
    client = connect(config, briefly=True)
    experiment = _find_experiment(client, config)
    if experiment is None:
        raise InputError(
            f"name: {config.shown_tracking_uri} has no study '{config.name}'; run one with "
            f"`tandem run`, or name one that it has: {known_experiments(client)}"
        )
    return experiment


def _find_experiment(client: Connection, config: Config) -> Any:
    """The study's experiment, or None.

    Raises:
        InputError: if it was deleted, which leaves its name taken.
    """
    experiment = client.get_experiment_by_name(config.name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"name: the MLflow experiment '{config.name}' was deleted in "
            f"{config.shown_tracking_uri}; restore it there or give the study another name"
        )
    return experiment
