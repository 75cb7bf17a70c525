"""What every training pod has, whichever API creates it: places, devices, memory, variables.

All pods meet the ``restricted`` Pod Security Standard: no root, no privileges, no writable root.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.cluster_config import ClusterConfig

__all__ = ["RESTRICTED_CONTAINER", "RESTRICTED_POD", "Pod", "tracking_credentials"]

_USER = 10001
"""Of the images, and of the files on the claim."""

RESTRICTED_POD: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": _USER,
    "runAsGroup": _USER,
    "fsGroup": _USER,
    "fsGroupChangePolicy": "OnRootMismatch",  # a claim of millions of files is not gone through
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}

_RESOURCES = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}
_SPOT_LABELS: Mapping[str, dict[str, str]] = {
    "none": {},
    "gke": {"cloud.google.com/gke-spot": "true"},
    "eks": {"eks.amazonaws.com/capacityType": "SPOT"},
    "aks": {"kubernetes.azure.com/scalesetpriority": "spot"},
}
_SPOT_TAINTS = {
    "gke": "cloud.google.com/gke-spot",
    "aks": "kubernetes.azure.com/scalesetpriority",
}


@dataclass(frozen=True)
class Pod:
    """A pod of so many workers; none: it coordinates others, or serves them, on its CPU."""

    cluster: ClusterConfig
    workers: int
    threads_per_worker: int

    @property
    def resources(self) -> dict[str, Any]:
        """Requests, which are its limits too: no neighbour takes what it is measured on."""
        cluster, share = self.cluster, max(self.workers, 1)
        each = cluster.cpu_per_worker or str(self.threads_per_worker)
        asked = {
            "cpu": _times(each, share),
            "memory": _times(cluster.memory_per_worker, share),
        }
        kind = cluster.accelerator.kind
        if kind != "none" and self.workers:
            asked[_RESOURCES[kind]] = str(cluster.accelerator.per_worker * self.workers)
        return {"requests": asked, "limits": dict(asked)}

    @property
    def node_selector(self) -> dict[str, str]:
        """Labels of the nodes that it may run on."""
        cluster, accelerator = self.cluster, self.cluster.accelerator
        labels = {**cluster.node_selector, **_SPOT_LABELS[cluster.spot]}
        if self.workers and accelerator.kind != "none":
            labels |= accelerator.node_selector
        if self.workers and accelerator.tpu_type and accelerator.topology:
            labels["cloud.google.com/gke-tpu-accelerator"] = accelerator.tpu_type
            labels["cloud.google.com/gke-tpu-topology"] = accelerator.topology
        return labels

    @property
    def tolerations(self) -> list[dict[str, Any]]:
        """Taints of accelerators and spot nodes, and those of the configuration."""
        found = [each.model_dump(exclude_none=True) for each in self.cluster.tolerations]
        keys = [_RESOURCES.get(self.cluster.accelerator.kind), _SPOT_TAINTS.get(self.cluster.spot)]
        known = {(each["key"], each.get("effect")) for each in found}
        for key in keys:
            if key is not None and not known & {(key, None), (key, "NoSchedule")}:
                found.append({"key": key, "operator": "Exists", "effect": "NoSchedule"})
        return found

    @property
    def affinity(self) -> dict[str, Any]:
        """The named nodes, if there are any."""
        if not self.cluster.nodes:
            return {}
        named = {
            "key": "kubernetes.io/hostname",
            "operator": "In",
            "values": [*self.cluster.nodes],
        }
        terms = {"nodeSelectorTerms": [{"matchExpressions": [named]}]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}

    @property
    def volumes(self) -> list[dict[str, Any]]:
        """The claim, shared memory for data loaders and NCCL, and room for temporary files."""
        return [
            {"name": "data", "persistentVolumeClaim": {"claimName": self.cluster.claim}},
            {
                "name": "shm",
                "emptyDir": {"medium": "Memory", "sizeLimit": self.cluster.shared_memory},
            },
            {"name": "tmp", "emptyDir": {}},
        ]

    @property
    def mounts(self) -> list[dict[str, Any]]:
        """Where they are."""
        return [
            {"name": "data", "mountPath": self.cluster.mount_path},
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "tmp", "mountPath": "/tmp"},
        ]

    @property
    def placement(self) -> dict[str, Any]:
        """Where it may run, as a pod's specification says it."""
        asked = {
            "nodeSelector": self.node_selector,
            "tolerations": self.tolerations,
            "affinity": self.affinity,
        }
        return {name: value for name, value in asked.items() if value}


def tracking_credentials(cluster: ClusterConfig) -> list[dict[str, Any]]:
    """The tracking server's user and password, by reference to the secret that has them."""
    if cluster.tracking_secret is None:
        return []
    return [
        {
            "name": name,
            "valueFrom": {"secretKeyRef": {"name": cluster.tracking_secret, "key": name}},
        }
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    ]


def _times(quantity: str, factor: int) -> str:
    """A Kubernetes quantity, so many times."""
    digits = quantity.rstrip("mkKMGTi")
    amount = (Decimal(digits) * factor).normalize()
    return f"{amount:f}{quantity[len(digits) :]}"
