"""What Kubernetes tells of a run's pods, collected while the run goes on.

Nothing depends on it: where it cannot be had, the run's own document tells most of the times.
"""

import time
from collections.abc import Iterable
from typing import Any

from pipelines.errors import InputError, WorkError
from pipelines.kubeflow_times import PodStart, TaskTimes, pod_starts
from pipelines.submit.kubernetes_api import KubernetesApi

__all__ = ["PodEvents"]

_SECONDS_BETWEEN = 600.0
"""A cluster forgets its events, by default after an hour."""


class PodEvents:
    """The events of one namespace's pods, asked for with the user's own rights."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._asked_at = time.monotonic()
        self._events: dict[str, dict[str, Any]] = {}
        self._refusal = ""

    def take_now_and_then(self) -> None:
        """Ask again if the last time is long ago."""
        if time.monotonic() - self._asked_at >= _SECONDS_BETWEEN:
            self._take()

    def starts(self) -> dict[str, PodStart]:
        """Pod -> how it came to run, as far as anything tells."""
        self._take()
        return pod_starts({"items": [*self._events.values()]})

    def why_not_all(self, tasks: Iterable[TaskTimes]) -> str:
        """What of the tasks' times no event told, in a sentence; empty if events told of all."""
        known = [task.pull_seconds is not None for task in tasks]
        if all(known):
            return ""
        which = "All" if not any(known) else f"{known.count(False)} of {len(known)}"
        why = self._refusal or f"namespace {self._namespace} has no events of their pods"
        return f"{which} tasks are timed by Kubeflow's record alone, without image pulls: {why}"

    def _take(self) -> None:
        """Where that fails once it is given up, since each attempt is one of many already."""
        self._asked_at = time.monotonic()
        if self._refusal:
            return
        try:
            for event in KubernetesApi(self._namespace).pod_events():
                self._events[event["metadata"]["name"]] = event
        except (InputError, WorkError) as error:
            self._refusal = str(error)
