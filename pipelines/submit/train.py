"""One training run as a job of the cluster, watched from outside: ``tandem train --on kubernetes``.

Nothing of it lies here: its configuration goes along in a variable, its folder is on the claim, its
run in the cluster's tracking server, and what it found is in rank 0's log.
"""

from pathlib import Path
from typing import Any

import yaml

from pipelines.cell import Cell
from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.errors import DivergedError, PreemptedError, UnansweredError, WorkError
from pipelines.preemption import Preemption
from pipelines.strategies import Framework
from pipelines.submit.job_runner import JobListener, run_job
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.training_job import CONFIG_VARIABLE, JobRequest, build_job, job_name
from pipelines.training_run import Listener, train_arguments

__all__ = ["train_job_request", "train_on_cluster"]

_CONFIG_IN_POD = Path("/tmp/config.yaml")


def train_job_request(
    config: Config, framework: Framework, workers: int, study_id: str
) -> JobRequest:
    """A run outside any study; started again with the same ``study_id`` it goes on."""
    cell = Cell(framework, config.strategy(framework), workers)
    output = config.output / "runs" / study_id / cell.slug
    return JobRequest(
        name=job_name(config.name, framework, f"x{workers}"),
        framework=framework,
        layout=Layout.of(config, framework, workers),
        arguments=train_arguments(cell, _CONFIG_IN_POD, output, study_id=""),
        threads_per_worker=config.study.threads_per_worker,
        variables={
            CONFIG_VARIABLE: yaml.safe_dump(config.without_secrets(), sort_keys=False),
            **config.child_variables,
        },
    )


def train_on_cluster(
    config: Config,
    framework: Framework,
    workers: int,
    study_id: str,
    listener: Listener,
    max_restarts: int = 0,
    api: KubernetesApi | None = None,
) -> tuple[str, dict[str, float]]:
    """Train there; returns the id of its run, and what it found.

    ``config`` is one ``on_cluster``. A job whose workers were preempted is created again, up to
    ``cluster.max_restarts`` times, as is up to ``max_restarts`` times one that failed.

    Raises:
        DivergedError: if its loss is no longer finite.
        WorkError: if it failed.
        UnansweredError: if the cluster is away for more than some minutes.
        PreemptedError: if it was preempted once too often, or this process is asked to end.
        InputError: if the cluster, or a worker, refuses it.
    """
    api = api or KubernetesApi(config.cluster.namespace)
    cell = Cell(framework, config.strategy(framework), workers)
    restarts = preemptions = 0
    while True:
        told = _Told(cell, listener)
        request = train_job_request(config, framework, workers, study_id)
        listener.on_note(f"job {request.name} in namespace {config.cluster.namespace}")
        preempted = ""
        try:
            job = build_job(config.cluster, request)
            with Preemption().watched() as preemption:
                run_job(api, config.cluster, job, told.job_listener(), preemption=preemption)
        except PreemptedError as error:
            if preemption.asked:
                raise
            preempted = str(error)
        except UnansweredError:
            raise  # the job may be well, and another would end it
        except WorkError as error:
            if told.diverged:
                raise DivergedError(told.diverged) from None
            if restarts == max_restarts:
                raise
            restarts += 1
            listener.on_note(f"{error}; starting again ({restarts} of {max_restarts})")
            continue
        if told.result is not None:
            return told.result
        if told.preempted is not None:
            preempted = f"preempted, and saved after step {told.preempted}"
        if not preempted:
            raise WorkError(f"job {request.name} ended without a result")
        if preemptions == config.cluster.max_restarts:
            raise PreemptedError(preempted)
        preemptions += 1
        listener.on_note(f"{preempted}; going on")


class _Told:
    """What rank 0 has said."""

    def __init__(self, cell: Cell, listener: Listener) -> None:
        self.preempted: int | None = None
        self.diverged = ""
        self.result: tuple[str, dict[str, float]] | None = None
        self._cell = cell
        self._listener = listener

    def job_listener(self) -> JobListener:
        return JobListener(
            on_event=self._on_event,
            on_line=lambda line: self._listener.on_line("rank0", line),
            on_state=self._listener.on_note,
        )

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["event"] in ("resumed", "step", "result"):
            self.preempted = None  # in the meantime it went on
        match event["event"]:
            case "step":
                self._listener.on_progress(self._cell, event["step"], event["steps"])
            case "note":
                self._listener.on_note(event["text"])
            case "preempted":
                self.preempted = event["step"]
            case "diverged":
                self.diverged = event["message"]
            case "result":
                self.result = event["run_id"], event["metrics"]
