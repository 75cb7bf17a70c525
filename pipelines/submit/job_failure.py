"""Why a training job failed: from its pods, and what the first of them to end said last."""

import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines import events
from pipelines.errors import InputError, TandemError, WorkError
from pipelines.launch import cause
from pipelines.submit.kubernetes_api import KubernetesApi

__all__ = ["failure_of", "out_of_time", "why_taken_back"]

_LAST_LINES = 300
"""Torchrun adds some 35 of its own to a worker's, and one for each further worker."""
_TORCHRUN = "torch/distributed/elastic/multiprocessing/api.py:"
"""In every line in which it says that it ends workers, or that one has failed."""
_FAILED = re.compile(r"\] failed \(exitcode: (-?\d+)\) local_rank: \d+ ")

_TAKEN_BACK = {"Evicted", "NodeShutdown", "Preempting", "Shutdown", "Terminated"}
"""Reasons of a pod's end that are the kubelet's, not the pod's."""
_DISRUPTED = "DisruptionTarget"
"""Kubernetes' condition of a pod that an eviction, a drain or a preemption ends."""


def why_taken_back(pod: Any) -> str:
    """Why Kubernetes has asked a pod to end, in its words; empty where it has not."""
    for condition in pod.status.conditions or []:
        if condition.type == _DISRUPTED and condition.status == "True":
            return _told(condition)
    return _told(pod.status) if pod.status.reason in _TAKEN_BACK else ""


def out_of_time(condition: Mapping[str, Any]) -> bool:
    """Whether a job failed since it took longer than it may, as the condition says."""
    said = f"{condition.get('reason', '')} {condition.get('message', '')}"
    return "deadline" in said.lower()


def failure_of(
    api: KubernetesApi, job: str, pods: Sequence[Any], condition: Mapping[str, Any]
) -> TandemError:
    """What to raise: InputError if a worker refused its input, else WorkError.

    ``condition`` is the job's, by which it has failed.
    """
    failed = [pod for pod in pods if _exit_of(pod) is not None]
    if out_of_time(condition) or not failed:
        reason = f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
        return WorkError(f"job {job} failed ({reason})")
    # The first to end is the cause; the others have lost it.
    first = min(failed, key=lambda pod: str(_exit_of(pod).finished_at))
    ended, pod_name = _exit_of(first), first.metadata.name
    lines, code = _of_worker(api.last_lines(pod_name, _LAST_LINES), ended.exit_code)
    told = [line for line in lines if events.parse(line) is None]
    refusals = [line for line in told if line.startswith("error: ")]
    if code == InputError.exit_code and refusals:
        return InputError(refusals[-1].removeprefix("error: "))
    # A signal is somebody else's, so what the worker said last has nothing to do with it.
    how, said = f"exit code {code}", f": {cause(told)}"
    if code < 0:
        how, said = signal.Signals(-code).name, ""
    if ended.reason not in (None, "", "Error"):
        how += f", {ended.reason}"
    return WorkError(f"pod {pod_name} ended with {how}{said} (job {job})")


def _of_worker(lines: list[str], code: int) -> tuple[list[str], int]:
    """What a pod's worker said last, and how it ended: torchrun's own words and code hide both.

    A code below 0 is a signal's.
    """
    own = [number for number, line in enumerate(lines) if _TORCHRUN in line]
    for number in own:
        if failed := _FAILED.search(lines[number]):
            return lines[: own[0]], int(failed[1])
    return lines, code


def _exit_of(pod: Any) -> Any:
    """How a pod's container ended, if it did, and badly."""
    for status in pod.status.container_statuses or []:
        ended = status.state.terminated if status.state else None
        if ended is not None and ended.exit_code != 0:
            return ended
    return None


def _told(said: Any) -> str:
    """A reason and its message, in one line."""
    message = " ".join(str(said.message or "").split())
    return f"{said.reason or _DISRUPTED}: {message}".strip(": ")
