"""A client of a study's store: quiet, and its failures to reach a server are one line."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.errors import DeniedError, InputError, TandemError, WorkError
from pipelines.secrets import shown

__all__ = ["Connection", "connect", "database_file", "quieten"]

_BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""How long a server is waited for before any work is done: a quarter of a minute where it refuses,
some 70 s where it is silent. MLflow's own settings, 7 and 120 s, make that 4 and 20 minutes, which
is right in the middle of hours of training."""


class Connection:
    """MLflow's client of a study's store, whose failures to reach a server are one line."""

    def __init__(self, config: Config, briefly: bool) -> None:
        from mlflow import MlflowClient

        self._config = config
        self._settings = _BRIEFLY if briefly else {}
        with _one_at_a_time(config):
            self._client = MlflowClient(config.tracking_uri)

    def __getattr__(self, name: str) -> Any:
        called = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            from mlflow.exceptions import MlflowException
            from requests.exceptions import RequestException

            try:
                with _set_unless_given(self._settings):
                    return called(*arguments, **options)
            except (MlflowException, RequestException) as error:
                failure = _failure_to_reach(self._config, error)
                if failure is None:
                    raise
                # MLflow's own words hold the whole URI, with the password.
                raise failure from None

        return call


def connect(config: Config, *, briefly: bool = False) -> Connection:
    """A client of the study's store; clients share MLflow's own cache of connections."""
    quieten()
    # Else MLflow fetches artifacts from the object store, which the server alone may reach.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    return Connection(config, briefly)


def quieten() -> None:
    """No progress bars or migration logs between a command's own lines."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The address of every run that ends on a server, as it was given: with the password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def database_file(config: Config) -> Path | None:
    """The file of a local store, or None for a server."""
    path = config.tracking_uri.removeprefix("sqlite:///")
    return None if path == config.tracking_uri else Path(path)


@contextmanager
def _one_at_a_time(config: Config) -> Iterator[None]:
    """Hold a local store's folder: MLflow makes missing tables when it connects.

    Two processes that do so at once break each other's. The folder itself is locked, which leaves
    no file behind; where its file system has no such locks, first commands must not come together.
    """
    file = database_file(config)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def _set_unless_given(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what the environment does not have, in the block alone: workers inherit the rest."""
    mine = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


def _failure_to_reach(config: Config, error: Exception) -> TandemError | None:
    """What to tell of an error that came from the way to the server, or None."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    where = f"tracking.uri: {config.shown_tracking_uri}"
    chain: list[BaseException] = [error]
    while deeper := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(deeper)
    if any(isinstance(link, RequestException) for link in chain):
        why = getattr(chain[-1], "strerror", None) or shown(str(chain[-1]))
        return WorkError(f"{where} does not answer ({why}); start it there, or name another")
    if not config.tracking_uri.startswith(("http://", "https://")):
        return None
    assert isinstance(error, MlflowException)
    if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        refusal = DeniedError if error.error_code == "PERMISSION_DENIED" else InputError
        return refusal(
            f"{where} refuses these credentials; give those of a user who may, in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if str(error).startswith("API request to endpoint"):  # an answer, and not one of MLflow's
        return WorkError(f"{where} does not answer as MLflow does; name an MLflow tracking server")
    return None
