"""MLflow: the only module that imports it.

One experiment per study; one flat run per cell, since nested runs stay collapsed in the UI and
leave its charts empty. Rank 0 alone writes parameters and learning metrics; every rank's system
metrics carry its rank. A run that was opened outside and named by ``MLFLOW_RUN_ID`` is continued.
A tracking server that does not answer is a ``WorkError``, whichever function asked it.
"""

import gc
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.errors import InputError, PreemptedError, TandemError, WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.run_folder import RunFolder
from pipelines.runs import (
    KIND_TAG,
    PREEMPTED_TAG,
    RESUMED_TAG,
    STUDY_TAG,
    RunKind,
    RunRecord,
)
from pipelines.secrets import shown
from pipelines.worker import Worker

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

RUN_ID_VARIABLE = "MLFLOW_RUN_ID"
_SYSTEM_METRICS_SECONDS = 5.0
"""A sample takes 13 ms of the worker's core, most of it for asking after the run and writing to the
store: every two seconds that is 0.65 % of training (docs/methodology.md)."""
_KIND_OF_EXPERIMENT = "mlflow.experimentKind"
"""Tells MLflow's UI to open the experiment on its runs, not on its pages for language models."""
_COLOUR_TAG = "mlflow.runColor"
_METRICS_PER_REQUEST = 1000
_BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""How long a server is waited for before any work is done: a quarter of a minute where it refuses,
some 70 s where it is silent. MLflow's own settings, 7 and 120 s, make that 4 and 20 minutes, which
is right in the middle of hours of training."""


def new_study_id() -> str:
    """An identifier for one execution of a study; later ones sort after earlier ones."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def prepare_store(config: Config) -> str:
    """Make the store and the study's experiment ready; returns the experiment's id.

    Called once before workers start, so that they never race to create the database.
    """
    return _prepare(config, _client(config, briefly=True))


def _prepare(config: Config, client: "_Client") -> str:
    file = _database(config)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    experiment = _find_experiment(client, config)
    if experiment is not None:
        return str(experiment.experiment_id)
    # A server knows where its artifacts go; a local database has to be told.
    location = (config.output / "artifacts").resolve().as_uri() if file else None
    return str(
        client.create_experiment(
            config.name,
            artifact_location=location,
            tags={_KIND_OF_EXPERIMENT: "custom_model_development"},
        )
    )


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
    _client(config).set_experiment_tag(experiment_id(config), name, value)


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
    client = _client(config)
    run = client.create_run(_prepare(config, client), run_name=name, tags=tags)
    _log_params(client, run.info.run_id, params)
    return str(run.info.run_id)


def delete_runs(config: Config, run_ids: Iterable[str]) -> None:
    """Delete runs in MLflow's sense: gone from lists and charts, and restorable."""
    for run_id in run_ids:
        _client(config).delete_run(run_id)


def require_run(config: Config, run_id: str) -> None:
    """Refuse to go on with a run that the store does not have.

    Raises:
        InputError: naming the store.
    """
    from mlflow.exceptions import MlflowException

    _require_store(config)
    try:
        _client(config, briefly=True).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"tracking.uri: {config.shown_tracking_uri} has no run {run_id}; name the store that "
            "the run began in"
        ) from None


def finish_run(config: Config, run_id: str, status: str) -> None:
    """End a run with MLflow's word for how it ended, unless it has ended already."""
    client = _client(config)
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
    _client(config).log_batch(
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
    _log_metrics(_client(config), run_id, metrics)


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
    _client(config).log_inputs(run_id, [entities.DatasetInput(logged, [training])])


def log_files(config: Config, run_id: str, files: Iterable[Path]) -> None:
    """Keep files as a run's artifacts."""
    for file in files:
        _client(config).log_artifact(run_id, str(file))


def read_file(config: Config, run_id: str, name: str) -> str | None:
    """The text of one of a run's artifacts; None if the run has none of that name."""
    from mlflow.exceptions import MlflowException

    client = _client(config, briefly=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return Path(client.download_artifacts(run_id, name, folder)).read_text()
    except (MlflowException, OSError):  # whichever the kind of store raises for what is not there
        return None


class TrackedRun:
    """The run that this process belongs to; on any rank but 0 its methods do nothing."""

    def __init__(self, config: Config, run_id: str, worker: Worker) -> None:
        self.run_id = run_id
        self.status_at_end = "FINISHED"
        self._config = config
        self._worker = worker

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; of a run that goes on, those that differ now are kept in a tag."""
        if not self._worker.is_chief:
            return
        client = _client(self._config)
        known = client.get_run(self.run_id).data.params
        new = {name: value for name, value in params.items() if name not in known}
        _log_params(client, self.run_id, new)
        differing = {
            name: str(value)
            for name, value in params.items()
            if name in known and known[name] != str(value)
        }
        if differing:
            client.set_tag(self.run_id, RESUMED_TAG, json.dumps(differing))

    def end_preempted(self, step: int) -> None:
        """Note after which step the run was asked to end, which it then has not ended well."""
        self.status_at_end = "KILLED"
        if self._worker.is_chief:
            _client(self._config).set_tag(self.run_id, PREEMPTED_TAG, str(step))

    def log_config(self) -> None:
        """Keep the resolved configuration as the run's artifact."""
        if self._worker.is_chief:
            resolved = self._config.without_secrets()
            _client(self._config).log_dict(self.run_id, resolved, "config.yaml")

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
            _client(self._config).log_text(self.run_id, text, name)

    def log_series(self, name: str, values: Iterable[float]) -> None:
        """Log one value per step, the first at step 1; what an earlier attempt logged stays."""
        from mlflow.entities import Metric

        if not self._worker.is_chief:
            return
        now = int(time.time() * 1000)
        logged = _client(self._config).get_metric_history(self.run_id, name)
        last = max((point.step for point in logged), default=0)
        points = [
            Metric(name, value, now, step)
            for step, value in enumerate(values, start=1)
            if step > last
        ]
        _log_metrics(_client(self._config), self.run_id, points)


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
    earlier attempt, else rank 0 creates it. System metrics are recorded meanwhile.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    _quieten()
    held = RunFolder.find(folder)
    run_id = os.environ.get(RUN_ID_VARIABLE, "") or (held.run_id if held else "")
    if worker.is_chief:
        if run_id:  # a restarted job goes on with its run, which may have ended as failed
            _client(config).update_run(run_id, status="RUNNING")
        else:
            run_id = create_run(config, cell.name, "train", study_id, params)
        store = held.tracking_uri if held else config.given_tracking_uri
        RunFolder.of(run_id, cell, study_id, store).write(folder)
    run = TrackedRun(config, run_id, worker)
    monitor = None
    if run_id:
        monitor = SystemMetricsMonitor(
            run_id,
            sampling_interval=_SYSTEM_METRICS_SECONDS,
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


def read_runs(config: Config) -> list[RunRecord]:
    """All runs of the study's experiment, oldest first.

    Raises:
        InputError: if the store has no such experiment.
    """
    _require_store(config)
    client = _client(config, briefly=True)
    experiment = client.get_experiment_by_name(config.name)
    if experiment is None:
        raise InputError(
            f"--study {config.name}: {config.shown_tracking_uri} has no such study; "
            f"it has: {_known_experiments(client)}"
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


class _Client:
    """MLflow's client of a study's store, whose failures to reach a server are one line."""

    def __init__(self, config: Config, briefly: bool) -> None:
        from mlflow import MlflowClient

        self._config = config
        self._settings = _BRIEFLY if briefly else {}
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


def _client(config: Config, *, briefly: bool = False) -> _Client:
    """A client of the study's store; clients share MLflow's own cache of connections."""
    _quieten()
    # Else MLflow fetches artifacts from the object store, which the server alone may reach.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    return _Client(config, briefly)


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
        return InputError(
            f"{where} refuses these credentials; give those of a user who may, in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if str(error).startswith("API request to endpoint"):  # an answer, and not one of MLflow's
        return WorkError(f"{where} does not answer as MLflow does; name an MLflow tracking server")
    return None


def _find_experiment(client: _Client, config: Config) -> Any:
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


def _require_experiment(config: Config) -> Any:
    _require_store(config)
    client = _client(config, briefly=True)
    experiment = _find_experiment(client, config)
    if experiment is None:
        raise InputError(
            f"name: {config.shown_tracking_uri} has no study '{config.name}'; run one with "
            f"`tandem run`, or name one that it has: {_known_experiments(client)}"
        )
    return experiment


def _known_experiments(client: _Client) -> str:
    return ", ".join(sorted(found.name for found in client.search_experiments()))


def _database(config: Config) -> Path | None:
    """The file of a local store, or None for a server."""
    path = config.tracking_uri.removeprefix("sqlite:///")
    return None if path == config.tracking_uri else Path(path)


def _require_store(config: Config) -> None:
    """Refuse to read from a database that is not there, which MLflow would create empty."""
    file = _database(config)
    if file is not None and not file.exists():
        raise InputError(f"{file}: no runs have been tracked here; make some with `tandem run`")


def _quieten() -> None:
    """No progress bars or migration logs between a command's own lines."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The address of every run that ends on a server, as it was given: with the password.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


def _log_metrics(client: Any, run_id: str, metrics: Sequence[Any]) -> None:
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def _log_params(client: Any, run_id: str, params: Mapping[str, object]) -> None:
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])
