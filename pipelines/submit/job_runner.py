"""A training job from its creation to its end: told as it goes, and failing with its reason."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines import events
from pipelines.cluster_config import ClusterConfig
from pipelines.errors import InputError, PreemptedError, TandemError, WorkError
from pipelines.launch import cause
from pipelines.preemption import Preemption
from pipelines.submit.earlier_jobs import end_earlier_jobs
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.refused_pods import RefusedPods
from pipelines.submit.training_job import Kind, conditions_of, kind_of

__all__ = ["JobListener", "run_job"]

_POLL_SECONDS = 2.0
_LAST_LINES = 30
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
    """When rank 0's pod runs."""


def run_job(
    api: KubernetesApi,
    cluster: ClusterConfig,
    job: dict[str, Any],
    listener: JobListener,
    *,
    preemption: Preemption | None = None,
) -> float:
    """Create a job and wait for its end; returns the seconds that it took.

    They count from when rank 0's pod runs: what it waited for before is not training's.

    One that ended well is deleted, its log having been told; one that failed is left to be looked
    at. If this process is asked to end, the job's pods are, and get their time to save. What an
    earlier attempt at the same has left running is ended first.

    Raises:
        WorkError: if it failed, with the worker's last lines or the job's reason, or an earlier
            attempt's pods do not go.
        InputError: if a worker refused its input, or the cluster the job.
        PreemptedError: if ``preemption`` was asked for.
    """
    return _Job(api, cluster, job, listener).run(preemption or Preemption())


@dataclass
class _Log:
    """Rank 0's, read by a thread of its own."""

    api: KubernetesApi
    listener: JobListener
    seen: str = ""
    """The time of the last line that was told."""
    error: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def read(self, pod: str) -> None:
        """Tell it to its end, however often the connection breaks."""
        try:
            while True:
                last = self.ended.is_set()  # what came before is then read to its end
                for when, line in self.api.follow(pod, self.seen):
                    self.seen = when
                    event = events.parse(line)
                    if event is None:
                        self.listener.on_line(line)
                    else:
                        self.listener.on_event(event)
                if last:
                    return
                self.ended.wait(_POLL_SECONDS)
        except BaseException as error:  # raised again by the thread that waits
            self.error = error


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
        self._log = _Log(api, listener)
        self._refused_pods = RefusedPods(api, self._name)
        self._reader: threading.Thread | None = None
        self._state = ""
        self._running_since: float | None = None

    def run(self, preemption: Preemption) -> float:
        if preemption.asked:
            raise PreemptedError("asked to end before the training job was created")
        end_earlier_jobs(self._api, self._cluster, self._job, self._listener.on_state, preemption)
        started = time.monotonic()
        try:
            self._api.create(self._kind, self._job)
            self._wait(preemption, started)
        except (KeyboardInterrupt, PreemptedError):
            self._log.ended.set()
            self._api.delete(self._kind, self._name)
            raise
        except TandemError:
            self._finish_log()
            raise
        ended = time.monotonic()
        self._finish_log()
        if self._log.error is not None:
            raise self._log.error
        self._api.delete(self._kind, self._name)
        return ended - (self._running_since or started)

    def _wait(self, preemption: Preemption, started: float) -> None:
        while True:
            conditions = conditions_of(self._api.job(self._kind, self._name))
            pods = self._api.pods(self._kind.selector(self._name))
            self._read_log(pods)
            if self._kind.succeeded in conditions:
                return
            if "Failed" in conditions:
                self._raise_failure(pods, conditions["Failed"])
            if self._log.error is not None:
                self._api.delete(self._kind, self._name)
                raise self._log.error
            if preemption.asked:
                raise PreemptedError(f"asked to end, and passed it on to job {self._name}")
            self._tell_state(pods, "Suspended" in conditions)
            if "Suspended" in conditions:  # in a queue, where it may be long
                started = time.monotonic()
            waited = time.monotonic() - started
            if self._reader is None and waited > self._cluster.start_minutes * 60:
                self._api.delete(self._kind, self._name)
                raise WorkError(
                    f"job {self._name} has no worker after {self._cluster.start_minutes} minutes "
                    f"(cluster.start_minutes): {self._state}"
                )
            time.sleep(_POLL_SECONDS)

    def _finish_log(self) -> None:
        self._log.ended.set()
        if self._reader is not None:
            self._reader.join(_SECONDS_FOR_THE_LOG)

    def _read_log(self, pods: list[Any]) -> None:
        if self._reader is not None:
            return
        for pod in pods:
            labels = pod.metadata.labels or {}
            first = all(labels.get(name) == value for name, value in self._kind.rank0.items())
            if first and pod.status.phase in ("Running", "Succeeded", "Failed"):
                self._reader = threading.Thread(
                    target=self._log.read, args=(pod.metadata.name,), daemon=True
                )
                self._running_since = time.monotonic()
                self._listener.on_running()
                self._reader.start()
                return

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

    def _raise_failure(self, pods: list[Any], condition: Mapping[str, Any]) -> None:
        reason = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
        failed = [pod for pod in pods if _exit_of(pod) is not None]
        if not failed:
            raise WorkError(f"job {self._name} failed ({reason})")
        # The first to end is the cause; the others have lost it.
        first = min(failed, key=lambda pod: str(_exit_of(pod).finished_at))
        ended, pod_name = _exit_of(first), first.metadata.name
        lines = self._api.last_lines(pod_name, _LAST_LINES)
        told = [line for line in lines if events.parse(line) is None]
        refusals = [line for line in told if line.startswith("error: ")]
        if ended.exit_code == InputError.exit_code and refusals:
            raise InputError(refusals[-1].removeprefix("error: "))
        how = f"exit code {ended.exit_code}"
        if ended.reason not in (None, "", "Error"):
            how += f", {ended.reason}"
        raise WorkError(f"pod {pod_name} ended with {how}: {cause(told)} (job {self._name})")


def _waits_for(pod: Any) -> str:
    """Why a pod does not run, in Kubernetes' word."""
    for status in pod.status.container_statuses or []:
        if status.state and status.state.waiting and status.state.waiting.reason:
            return str(status.state.waiting.reason)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return str(condition.reason)
    return ""


def _exit_of(pod: Any) -> Any:
    """How a pod's container ended, if it did, and badly."""
    for status in pod.status.container_statuses or []:
        ended = status.state.terminated if status.state else None
        if ended is not None and ended.exit_code != 0:
            return ended
    return None
