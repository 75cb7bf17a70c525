"""A training job from its creation to its end: told as it goes, and failing with its reason."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.cluster_config import ClusterConfig
from pipelines.errors import InputError, PreemptedError, TandemError, UnansweredError, WorkError
from pipelines.preemption import Preemption
from pipelines.submit.earlier_jobs import end_earlier_jobs
from pipelines.submit.job_failure import failure_of, out_of_time, why_taken_back
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.patience import answer_to
from pipelines.submit.rank0_log import Rank0Log
from pipelines.submit.refused_pods import RefusedPods
from pipelines.submit.training_job import Kind, conditions_of, kind_of

__all__ = ["JobListener", "run_job"]

_POLL_SECONDS = 2.0
_SECONDS_FOR_THE_LOG = 10.0


@dataclass(frozen=True)
class JobListener:
    """What is called while a job is under way."""

    on_event: Callable[[dict[str, Any]], None] = lambda event: None
    """With what rank 0 says of its progress."""
    on_line: Callable[[str], None] = lambda line: None
    """With every other line of rank 0's."""
    on_state: Callable[[str], None] = lambda text: None
    """With what the job waits for, when that changes."""
    on_running: Callable[[], None] = lambda: None
    """When rank 0's pod runs, for the first time."""


def run_job(
    api: KubernetesApi,
    cluster: ClusterConfig,
    job: dict[str, Any],
    listener: JobListener,
    *,
    preemption: Preemption | None = None,
) -> float:
    """Create a job and wait for its end; returns the seconds that it took.

    They count from when rank 0's pod runs, its last one where a queue has taken the job back: what
    it waited for before is not training's.

    One that ended well is deleted, its log having been told, and so is one whose rank 0 said that
    it was preempted and has saved: Kubernetes may count it as failed even so. One that failed by
    itself is left to be looked at. If this process is asked to end, the job's pods are, and get
    their time to save. What an earlier attempt at the same has left running is ended first.

    Raises:
        WorkError: if it failed, with the worker's last lines or the job's reason, or an earlier
            attempt's pods do not go.
        UnansweredError: if the cluster is away for more than some minutes; the job may run on.
        InputError: if a worker refused its input, or the cluster the job.
        PreemptedError: if ``preemption`` was asked for, or a pod was taken back before the workers
            had saved.
    """
    return _Job(api, cluster, job, listener).run(preemption or Preemption())


class _Job:
    def __init__(
        self,
        api: KubernetesApi,
        cluster: ClusterConfig,
        job: dict[str, Any],
        listener: JobListener,
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._job = job
        self._kind: Kind = kind_of(job)
        self._name: str = job["metadata"]["name"]
        self._listener = listener
        self._log: Rank0Log | None = None
        self._read: set[tuple[str, str]] = set()
        self._refused_pods = RefusedPods(api, self._name)
        self._state = ""
        self._taken_back = ""
        self._running_since: float | None = None

    def run(self, preemption: Preemption) -> float:
        if preemption.asked:
            raise PreemptedError("asked to end before the training job was created")
        end_earlier_jobs(self._api, self._cluster, self._job, self._listener.on_state, preemption)
        started = time.monotonic()
        try:
            create = partial(self._api.create, self._kind, self._job)
            answer_to(create, self._listener.on_state, preemption)
            self._wait(preemption, started)
        except (KeyboardInterrupt, PreemptedError) as error:
            # At once: Kubeflow ends a step's pod within about a second of asking it to end.
            if isinstance(error, PreemptedError) and not preemption.asked:
                self._remove()  # its pods were taken back
            else:
                self._end()
            raise
        except UnansweredError as error:
            raise UnansweredError(f"{error}{self._how_to_end_it}") from None
        except TandemError:
            self._finish_log()
            raise
        else:
            ended = time.monotonic()
            self._finish_log()
            self._remove()
        finally:
            if self._log is not None:
                self._log.finish(0)  # nobody listens any more
        return ended - (self._running_since or started)

    def _end(self) -> None:
        """End what may run still."""
        try:
            self._api.delete(self._kind, self._name)
        except WorkError as error:
            raise WorkError(f"{error}{self._how_to_end_it}") from None

    def _remove(self) -> None:
        """Tidy away what has ended; nothing depends on it."""
        try:
            self._api.delete(self._kind, self._name)
        except WorkError as error:
            self._listener.on_state(str(error))

    @property
    def _how_to_end_it(self) -> str:
        """Where nobody else will."""
        if "ownerReferences" in self._job["metadata"]:
            return ""
        what = f"{self._kind.name.lower()} {self._name}"
        return f"; the job may run on: kubectl --namespace {self._api.namespace} delete {what}"

    def _state_now(self) -> tuple[dict[str, Mapping[str, Any]], list[Any]]:
        """The job's conditions and its pods."""
        conditions = conditions_of(self._api.job(self._kind, self._name))
        return conditions, self._api.pods(self._kind.selector(self._name))

    def _wait(self, preemption: Preemption, started: float) -> None:
        while True:
            if preemption.asked:
                raise PreemptedError(f"asked to end, and passed it on to job {self._name}")
            conditions, pods = answer_to(self._state_now, self._listener.on_state, preemption)
            has_begun = self._read_log(pods)
            self._note_taken_back(pods)
            if self._kind.succeeded in conditions:
                return
            if "Failed" in conditions:
                self._end_of_failed(pods, conditions["Failed"])
                return
            if self._log is not None and self._log.error is not None:
                self._end()
                raise self._log.error
            self._tell_state(pods, "Suspended" in conditions)
            if has_begun or "Suspended" in conditions:  # in a queue, where it may be long
                started = time.monotonic()
            waited = time.monotonic() - started
            if waited > self._cluster.start_minutes * 60:
                self._end()
                raise WorkError(
                    f"job {self._name} has no worker after {self._cluster.start_minutes} minutes "
                    f"(cluster.start_minutes): {self._state}"
                )
            preemption.wait(_POLL_SECONDS)

    def _finish_log(self, seconds: float = _SECONDS_FOR_THE_LOG) -> None:
        if self._log is None:
            return
        self._log.finish(seconds)
        if self._log.error is not None:
            raise self._log.error

    def _note_taken_back(self, pods: list[Any]) -> None:
        """While they are there: once such a pod has ended nothing is left of it."""
        for pod in pods:
            if not self._taken_back and (why := why_taken_back(pod)):
                self._taken_back = f"pod {pod.metadata.name} was taken back ({why})"

    def _end_of_failed(self, pods: list[Any], condition: Mapping[str, Any]) -> None:
        """Nothing if the work is done, or saved; else its failure is raised."""
        # Pods may be saving still: a job has failed as soon as one of them is asked to end.
        self._finish_log(self._cluster.grace_seconds)
        taken_back = "" if out_of_time(condition) else self._taken_back
        said = "" if self._log is None else self._log.last_word
        if (said == "preempted" and not out_of_time(condition)) or (said and taken_back):
            return
        failure = failure_of(self._api, self._name, pods, condition)
        if taken_back and not isinstance(failure, InputError):
            raise PreemptedError(f"{taken_back} (job {self._name})")
        raise failure

    def _read_log(self, pods: list[Any]) -> bool:
        """Tell what rank 0's newest pod says; whether there is one that has begun.

        A queue that takes a job back and lets it in again gives it other pods, perhaps of the same
        names.
        """
        begun = {(pod.metadata.name, pod.metadata.uid): pod for pod in pods if self._is_rank0(pod)}
        if new := [pod for key, pod in begun.items() if key not in self._read]:
            if self._log is None:
                self._listener.on_running()
            else:
                self._log.finish(_SECONDS_FOR_THE_LOG)
                if self._log.error is not None:
                    return True  # it is raised by whoever called
            self._read |= begun.keys()
            newest = max(new, key=lambda pod: str(pod.metadata.creation_timestamp or ""))
            self._running_since, self._taken_back = time.monotonic(), ""
            self._log = Rank0Log(
                self._api, newest.metadata.name, self._listener.on_event, self._listener.on_line
            )
        return bool(begun)

    def _is_rank0(self, pod: Any) -> bool:
        """Whether it is the one whose log tells how the run goes, and has begun."""
        labels = pod.metadata.labels or {}
        first = all(labels.get(name) == value for name, value in self._kind.rank0.items())
        return first and pod.status.phase in ("Running", "Succeeded", "Failed")

    def _tell_state(self, pods: list[Any], queued: bool) -> None:
        running = sum(pod.status.phase == "Running" for pod in pods)
        waits = sorted({reason for pod in pods if (reason := _waits_for(pod))})
        if queued:
            waits.append("in a queue")
        if not pods and not queued and (refusal := self._refused_pods.reason()):
            waits.append(refusal)
        state = f"{running} of {len(pods)} pods running" if pods else "no pods yet"
        if waits:
            state += f" ({', '.join(waits)})"
        if state != self._state:
            self._state = state
            self._listener.on_state(state)


def _waits_for(pod: Any) -> str:
    """Why a pod does not run, in Kubernetes' word."""
    for status in pod.status.container_statuses or []:
        if status.state and status.state.waiting and status.state.waiting.reason:
            return str(status.state.waiting.reason)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.reason)
    return ""
