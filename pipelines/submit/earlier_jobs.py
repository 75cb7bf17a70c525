"""Jobs of earlier attempts at the same work, which end before it is begun again.

A step that is killed hard leaves its job running. Beside the next one it would take that one's
share of the nodes, and might write to the same folder.
"""

import time
from collections.abc import Callable
from typing import Any

from pipelines.cluster_config import ClusterConfig
from pipelines.errors import PreemptedError, WorkError
from pipelines.preemption import Preemption
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.patience import answer_to
from pipelines.submit.training_job import WORK_LABEL, conditions_of, kind_of

__all__ = ["end_earlier_jobs"]

_ENDED = ("Succeeded", "Failed")
_POLL_SECONDS = 2.0
_SECONDS_BEYOND_GRACE = 300.0
"""In which a cluster notices that a node is lost, and that its pods are gone with it."""


def end_earlier_jobs(
    api: KubernetesApi,
    cluster: ClusterConfig,
    job: dict[str, Any],
    on_state: Callable[[str], None],
    preemption: Preemption,
) -> None:
    """Delete the jobs that do the same as ``job``, and wait until no pod does.

    Pods get their time to save. Jobs that have ended by themselves are left to be looked at.

    Raises:
        WorkError: if pods still run ``cluster.grace_seconds`` and some minutes later, or the
            cluster is away for longer.
        PreemptedError: if ``preemption`` is asked for meanwhile.
    """
    kind, selector = kind_of(job), f"{WORK_LABEL}={job['metadata']['labels'][WORK_LABEL]}"
    for each in answer_to(lambda: api.jobs(kind, selector), on_state, preemption):
        if not {kind.succeeded, "Failed"} & conditions_of(each).keys():
            name = each["metadata"]["name"]
            on_state(f"job {name} of an earlier attempt is ended first")
            api.delete(kind, name)
    allowed = cluster.grace_seconds + _SECONDS_BEYOND_GRACE
    deadline = time.monotonic() + allowed
    told = False
    while True:
        found = answer_to(lambda: api.pods(selector), on_state, preemption)
        pods = [pod for pod in found if pod.status.phase not in _ENDED]
        if not pods:
            return
        names = ", ".join(pod.metadata.name for pod in pods)
        if not told:
            told = True
            on_state(f"waiting for the pods of an earlier attempt ({names})")
        if preemption.asked:
            raise PreemptedError("asked to end while an earlier attempt was ending")
        if time.monotonic() >= deadline:
            raise WorkError(
                f"pods of an earlier attempt do not end, {allowed:.0f} s after its job was deleted "
                f"({names}); where their node is gone for good, kubectl delete pod --force"
            )
        preemption.wait(_POLL_SECONDS)
