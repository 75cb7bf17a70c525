"""A run of Kubeflow Pipelines, followed to its end."""

import time
from collections.abc import Callable
from typing import Any

from pipelines.errors import InputError, WorkError
from pipelines.launch import cause
from pipelines.submit.client import KfpClient
from pipelines.submit.patience import answer_to

__all__ = ["follow_run"]

_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
_POLL_SECONDS = 10.0
_LAST_LINES = 20

OnProgress = Callable[[str, int, int], None]
"""Called with what is running, and how many tasks have ended, of how many that are known."""


def follow_run(
    client: KfpClient,
    run_id: str,
    namespace: str,
    on_progress: OnProgress,
    on_line: Callable[[str], None],
    on_poll: Callable[[], None] = lambda: None,
) -> Any:
    """Wait until a run has ended well; returns it as it then is.

    ``on_line`` is called with the last lines of the step that failed, if one did, and when the
    server does not answer, which it may do for some minutes; ``on_poll`` every few seconds
    meanwhile.

    Raises:
        WorkError: if it has not, naming the task that failed.
        UnansweredError: if the server is away for longer.
    """
    told: tuple[str, int, int] | None = None
    while True:
        run = answer_to(lambda: client.run(run_id), on_line)
        steps = _steps(run)
        ended = sum(_state(step) in _ENDED for step in steps)
        running = [step.display_name for step in steps if _state(step) == "RUNNING"]
        now = (", ".join(running) or str(run.state or "PENDING").lower(), ended, len(steps))
        if now != told:
            told = now
            on_progress(*now)
        if run.state in _ENDED:
            break
        on_poll()
        time.sleep(_POLL_SECONDS)
    if run.state == "SUCCEEDED":
        return run
    failed = [step for step in steps if _state(step) == "FAILED"]
    if not failed:
        reason = f": {run.error.message}" if run.error and run.error.message else ""
        raise WorkError(f"run {run_id} ended as {run.state}{reason} ({client.address(run_id)})")
    first = min(failed, key=lambda step: str(step.end_time))
    lines = _log_of(client, run, first, namespace)
    for line in lines[-_LAST_LINES:]:
        on_line(line)
    why = first.error.message if first.error and first.error.message else "no reason given"
    # Behind what the step itself said last stands what Kubeflow's launcher makes of its end.
    last = cause(lines) if lines else why
    raise WorkError(f"task '{first.display_name}' failed: {last} ({client.address(run_id)})")


def _steps(run: Any) -> list[Any]:
    """The tasks that do something: a DAG's root and drivers are others' parents or helpers."""
    details = (run.run_details.task_details if run.run_details else None) or []
    parents = {each.parent_task_id for each in details if each.parent_task_id}
    return [
        each
        for each in details
        if each.task_id not in parents
        and not str(each.display_name).endswith("-driver")
        and each.display_name not in ("root", "executor")
    ]


def _state(step: Any) -> str:
    return str(step.state or "")


def _log_of(client: KfpClient, run: Any, step: Any, namespace: str) -> list[str]:
    """From the server's pages, else from the cluster itself, where either can be reached."""
    for pod in _pods_of(run, step):
        if log := client.pod_log(run.run_id, pod, namespace):
            return [line for line in log.splitlines() if line.strip()]
        from pipelines.submit.kubernetes_api import KubernetesApi

        try:
            lines = KubernetesApi(namespace).last_lines(pod, _LAST_LINES)
        except InputError:
            continue
        if lines:
            return [line for line in lines if line.strip()]
    return []


def _pods_of(run: Any, step: Any) -> list[str]:
    """Those that failed in a step, the innermost first: its own may be but a name for them."""
    known: dict[str, Any] = {}
    for each in run.run_details.task_details:
        known |= {name: each for name in (each.task_id, each.pod_name) if name}
    below, pods = [step], []
    for each in below:
        if each.pod_name:
            pods.append(str(each.pod_name))
        children = [known.get(child.task_id or child.pod_name) for child in each.child_tasks or []]
        below += [child for child in children if child and _state(child) == "FAILED"]
    return pods[::-1]
