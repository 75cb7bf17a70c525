"""Why a job has no pods: what Kubernetes says of the objects that were to make them.

A quota, or an admission rule such as Pod Security, refuses the pods, not the job.
"""

import time
from typing import Any

from pipelines.errors import WorkError
from pipelines.submit.kubernetes_api import KubernetesApi

__all__ = ["RefusedPods"]

_SECONDS_BETWEEN = 10.0
_POD = "is forbidden: "
"""What stands before the reason, with the pod's name, another one at each attempt."""


class RefusedPods:
    """The newest warning about one job and what it consists of."""

    def __init__(self, api: KubernetesApi, job: str) -> None:
        self._api = api
        self._job = job
        self._asked_at: float | None = None
        self._refused = False
        self._reason = ""

    def reason(self) -> str:
        """It, in one line; empty where there is none, or the cluster does not tell.

        It is asked now and then, and where that fails not again: nothing depends on it.
        """
        now = time.monotonic()
        if self._refused or (
            self._asked_at is not None and now < self._asked_at + _SECONDS_BETWEEN
        ):
            return self._reason
        self._asked_at = now
        try:
            own = [each for each in self._api.warnings() if self._is_about_it(each)]
        except WorkError:
            self._refused = True
            return self._reason
        if own:
            newest = max(own, key=_time)
            message = " ".join(str(newest.get("message") or "").split())
            said = f"{newest.get('reason') or ''}: {message.rpartition(_POD)[2]}"
            self._reason = said.strip(": ")
        return self._reason

    def _is_about_it(self, event: dict[str, Any]) -> bool:
        """A TrainJob's JobSet has its name, a JobSet's jobs begin with it."""
        name = str((event.get("involvedObject") or {}).get("name") or "")
        return name == self._job or name.startswith(f"{self._job}-")


def _time(event: dict[str, Any]) -> str:
    """When it happened last, as far as it says so."""
    series = event.get("series") or {}
    times = (
        *(event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime")),
        event["metadata"].get("creationTimestamp"),
    )
    return max(str(time or "") for time in times)
