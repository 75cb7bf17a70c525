"""The pod of Kubernetes' that this process runs in, as Kubeflow Pipelines tells it."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["own_pod"]

_NAME, _UID = "KFP_POD_NAME", "KFP_POD_UID"
"""What Kubeflow Pipelines' compiler gives every step (``argocompiler``'s ``commonEnvs``)."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def own_pod(
    namespace: str, environment: Mapping[str, str] = os.environ, said: Path = _NAMESPACE
) -> dict[str, str] | None:
    """A reference by which what is created in ``namespace`` goes with this step's pod.

    None outside a step, and in a pod of another namespace: Kubernetes looks for an owner in the
    namespace of what it owns, and removes what it finds none of.
    """
    if _NAME not in environment or _UID not in environment:
        return None
    try:
        here = said.read_text().strip()
    except OSError:
        return None
    if here != namespace:
        return None
    # Not one that blocks the pod's removal, which takes rights of its own.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": environment[_NAME],
        "uid": environment[_UID],
    }
