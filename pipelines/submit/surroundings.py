"""What a compiled pipeline needs of the cluster it is for: the claim, variables, nodes.

The compilers know images; these parts are added to what they wrote, so that TFX's pipeline and
kfp's get the same. Their form is that of the ``kfp-kubernetes`` package, of which TFX's environment
has no version that fits.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.cluster_config import CLUSTER_VARIABLE, ClusterConfig
from pipelines.submit.pods import RESTRICTED_POD, Pod, tracking_credentials

# The safe ones, in C where PyYAML has it: a study of many cells is a long file.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

__all__ = ["dags_of", "read_pipeline", "surround", "write_pipeline"]


def read_pipeline(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A compiled pipeline: its specification, and what it says of the platform (empty: nothing)."""
    documents = [each for each in yaml.load_all(file.read_text(), _Loader) if each]
    return documents[0], documents[1] if len(documents) > 1 else {}


def write_pipeline(file: Path, specification: dict[str, Any], platform: dict[str, Any]) -> None:
    """What ``read_pipeline`` reads."""
    file.write_text(yaml.dump_all([specification, platform], Dumper=_Dumper))


def surround(
    specification: dict[str, Any], cluster: ClusterConfig, training: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Give every step its place on the cluster; returns what belongs into the platform's document.

    ``training`` names the executors that train by themselves, and so get what a worker's pod has.
    Caching is turned off: its key has a dataset's path, not what lies there.
    """
    for dag in dags_of(specification):
        for task in dag["tasks"].values():
            task["cachingOptions"] = {}
    pod = Pod(cluster, workers=1, threads_per_worker=cluster.threads_per_worker)
    variables = {
        CLUSTER_VARIABLE: cluster.model_dump_json(exclude_defaults=True),
        "MLFLOW_TRACKING_URI": cluster.tracking_uri,
    }
    platform = {}
    for label, executor in specification["deploymentSpec"]["executors"].items():
        container = executor["container"]
        own = {each["name"]: each["value"] for each in container.get("env", [])}
        container["env"] = [
            {"name": name, "value": value} for name, value in sorted({**own, **variables}.items())
        ]
        on_devices = "accelerator" in container.get("resources", {})
        if label in training:
            container["resources"] = _resources(pod)
        platform[label] = _platform_of(cluster, pod, label in training, on_devices)
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform}}}}


def dags_of(specification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The root and every DAG inside a component."""
    yield specification["root"]["dag"]
    for component in specification["components"].values():
        if "dag" in component:
            yield component["dag"]


def _resources(pod: Pod) -> dict[str, Any]:
    """A worker's, in the words of the pipeline's specification."""
    asked = dict(pod.resources["requests"])
    said: dict[str, Any] = {}
    for name in ("cpu", "memory"):
        amount = asked.pop(name)
        said |= {f"resource{name.title()}{bound}": amount for bound in ("Request", "Limit")}
    for kind, count in asked.items():  # a GPU's or a TPU's, if there is one
        said["accelerator"] = {"resourceType": kind, "resourceCount": count}
    return said


def _platform_of(
    cluster: ClusterConfig, pod: Pod, trains: bool, on_devices: bool
) -> dict[str, Any]:
    said: dict[str, Any] = {
        # Kubeflow Pipelines drops privileges by itself, but leaves it to a step not to be root.
        "securityContext": {
            name: RESTRICTED_POD[name] for name in ("runAsUser", "runAsGroup", "runAsNonRoot")
        },
        "pvcMount": [
            {
                "constant": cluster.claim,
                "mountPath": cluster.mount_path,
                "pvcNameParameter": _constant(cluster.claim),
            }
        ],
    }
    if credentials := tracking_credentials(cluster):
        references = [(each["name"], each["valueFrom"]["secretKeyRef"]) for each in credentials]
        secret = references[0][1]["name"]
        said["secretAsEnv"] = [
            {
                "keyToEnv": [{"envVar": name, "secretKey": key["key"]} for name, key in references],
                "optional": False,
                "secretName": secret,
                "secretNameParameter": _constant(secret),
            }
        ]
    if trains:
        said["enabledSharedMemory"] = {"volumeName": "shm", "size": cluster.shared_memory}
    if trains or on_devices:
        said["nodeSelector"] = {"labels": pod.node_selector}
        said["tolerations"] = pod.tolerations
    return said


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}
