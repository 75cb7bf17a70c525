"""A training run as a job of Kubernetes: Kubeflow Trainer v2's, or the Training Operator's v1.

The program is the one that runs everywhere, ``python -m <framework>_pipeline``; its workers learn
their places from torchrun or from ``TF_CONFIG``. Plain dictionaries, as YAML has them, so that they
can be written down and checked without a cluster.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cluster import Layout
from pipelines.cluster_config import ClusterConfig
from pipelines.errors import InputError
from pipelines.launch import process_variables
from pipelines.run_folder import first_attempt
from pipelines.strategies import Framework
from pipelines.submit.pods import RESTRICTED_CONTAINER, RESTRICTED_POD, Pod, tracking_credentials

__all__ = [
    "CONFIG_VARIABLE",
    "WORK_LABEL",
    "JobRequest",
    "Kind",
    "build_job",
    "conditions_of",
    "job_name",
    "kind_of",
]

CONFIG_VARIABLE = "TANDEM_CONFIG"
"""The configuration itself, for pods that find no file with it on the claim."""
WORK_LABEL = "tandem/work"
"""Label of a job and its pods: all attempts at the same work have its value, and nothing else."""

_MOST_OF_A_NAME = 40
"""A JobSet's pods add to it, and its services must stay within DNS's 63."""
_INLINE = 'printf "%s" "$TANDEM_CONFIG" > /tmp/config.yaml && exec "$@"'
_PART_OF = {"app.kubernetes.io/part-of": "tandem"}
_OF_POD = {**_PART_OF, "app.kubernetes.io/component": "training"}
"""What the network policies know a training pod by."""
_MANAGER = "tandem/submit"
_SECONDS_TO_END = 5
"""Of a pod's grace: torchrun's own, after its workers'."""


@dataclass(frozen=True)
class Kind:
    """A kind of job, and what is needed to find its pods."""

    group: str
    version: str
    plural: str
    name: str
    succeeded: str
    """The condition of one that has ended well."""
    container: str
    job_label: str
    rank0: Mapping[str, str]
    """Labels of the pod whose log tells how the run goes."""

    def selector(self, job: str) -> str:
        """Finds the pods of a job."""
        return f"{self.job_label}={job}"


_OF_RUNTIME: Mapping[Framework, list[str]] = {
    # Told its place by Trainer's policy, in variables that torchrun reads.
    "torch": ["torchrun", "-m", "torch_pipeline"],
    # Of which Trainer has no policy: makes TF_CONFIG of the pod's number and name.
    "tf": ["python", "-m", "pipelines.pod", "tf"],
}

_OF_TRAINER = Kind(
    group="trainer.kubeflow.org",
    version="v1alpha1",
    plural="trainjobs",
    name="TrainJob",
    succeeded="Complete",
    container="node",
    job_label="jobset.sigs.k8s.io/jobset-name",
    rank0={
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": "0",
    },
)


def _of_operator(plural: str, name: str, container: str, first: str) -> Kind:
    return Kind(
        group="kubeflow.org",
        version="v1",
        plural=plural,
        name=name,
        succeeded="Succeeded",
        container=container,
        job_label="training.kubeflow.org/job-name",
        rank0={
            "training.kubeflow.org/replica-type": first,
            "training.kubeflow.org/replica-index": "0",
        },
    )


_KINDS = [
    _OF_TRAINER,
    _of_operator("pytorchjobs", "PyTorchJob", "pytorch", "master"),
    _of_operator("tfjobs", "TFJob", "tensorflow", "worker"),
]


@dataclass(frozen=True)
class JobRequest:
    """One start of one run's workers."""

    name: str
    framework: Framework
    layout: Layout
    arguments: Sequence[str]
    """What follows ``python -m <framework>_pipeline``."""
    threads_per_worker: int = 1
    variables: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, str] | None = None
    """Reference to the object of Kubernetes' that the job goes with; None: it has none."""

    @property
    def work(self) -> str:
        """What the job does, as a label: where it writes, whichever attempt at it this is."""
        output = Path(self.arguments[self.arguments.index("--output") + 1])
        return hashlib.sha256(str(first_attempt(output)).encode()).hexdigest()[:16]


def kind_of(job: Mapping[str, Any]) -> Kind:
    """What kind of job a dictionary is."""
    [found] = [kind for kind in _KINDS if kind.name == job["kind"]]
    servers = job["spec"].get("tfReplicaSpecs", {})
    return _of_operator("tfjobs", "TFJob", "tensorflow", "chief") if "Chief" in servers else found


def conditions_of(job: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Those conditions of a job, as the API describes it, that hold, by their type."""
    status = job.get("status") or {}
    return {each["type"]: each for each in status.get("conditions", []) if each["status"] == "True"}


def job_name(*parts: str, mark: str = "") -> str:
    """A name that Kubernetes takes and no other job has, such as ``quickstart-torch-ddp-x2-4f1c``.

    Cut in its middle where the parts are long; ``mark`` stands in the place of what no other has.
    """
    told = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    room = _MOST_OF_A_NAME - 5
    if len(told) > room:
        told = f"{told[: room // 2].rstrip('-')}-{told[-(room // 2) + 1 :].lstrip('-')}"
    if not told[:1].isalpha():
        told = f"t{told}"[:room]
    return f"{told}-{mark or secrets.token_hex(2)}"


def build_job(cluster: ClusterConfig, request: JobRequest) -> dict[str, Any]:
    """The job's manifest.

    Raises:
        InputError: if the workers cannot be shared out so, or that API has no such job.
    """
    pods, workers = _share_out(cluster, request)
    pod = Pod(cluster, workers, request.threads_per_worker)
    if cluster.job_api == "trainer":
        return _train_job(cluster, request, pod, pods)
    if request.framework == "torch":
        return _pytorch_job(cluster, request, pod, pods)
    return _tf_job(cluster, request, pod, pods)


def _share_out(cluster: ClusterConfig, request: JobRequest) -> tuple[int, int]:
    """How many pods, and how many workers in each."""
    layout, most, framework = request.layout, cluster.workers_per_pod, request.framework
    if layout.parameter_servers and cluster.job_api == "trainer":
        raise InputError(
            "cluster.job_api: Kubeflow Trainer v2 has no roles for parameter servers; use "
            "training-operator, or another tf.strategy"
        )
    if cluster.accelerator.kind == "tpu" and framework == "torch":
        raise InputError("cluster.accelerator: PyTorch has no strategy for TPUs here")
    if layout.workers == 1:
        return 1, layout.replicas
    each = min(most, layout.workers)
    if layout.workers % each:
        raise InputError(
            f"cluster.workers_per_pod: {layout.workers} workers do not fill pods of {each}"
        )
    if each > 1 and framework == "tf" and cluster.job_api == "training-operator":
        raise InputError(
            "cluster.workers_per_pod: a TFJob's pods have a worker each; use 1, or "
            "cluster.job_api: trainer"
        )
    return layout.workers // each, each


def _train_job(cluster: ClusterConfig, request: JobRequest, pod: Pod, pods: int) -> dict[str, Any]:
    processes = 1 if request.layout.replicas > 1 else pod.workers
    per_node, places = {"numProcPerNode": processes}, {}
    if request.framework == "tf":  # Trainer's own policy would tell torchrun
        per_node = {}
        places = {
            "TANDEM_NODES": str(pods),
            "TANDEM_PROCESSES_PER_NODE": str(processes),
            "TANDEM_START_SECONDS": str(cluster.start_minutes * 60),
        }
    trainer = {
        "image": cluster.image(request.framework),
        "numNodes": pods,
        **per_node,
        "command": _command(request, _OF_RUNTIME[request.framework]),
        "env": _environment(cluster, request, places),
        "resourcesPerNode": pod.resources,
    }
    patched = {
        "containers": [
            {
                "name": _OF_TRAINER.container,
                "volumeMounts": pod.mounts,
                "securityContext": dict(RESTRICTED_CONTAINER),
            }
        ],
        "securityContext": dict(RESTRICTED_POD),
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "volumes": pod.volumes,
        **pod.placement,
    }
    labels = {**_OF_POD, WORK_LABEL: request.work}
    of_node = {"template": {"metadata": {"labels": labels}, "spec": patched}}
    replicated = {"name": "node", "template": {"spec": of_node}}
    return {
        **_head(cluster, request, _OF_TRAINER),
        "spec": {
            "runtimeRef": {
                "apiGroup": _OF_TRAINER.group,
                "kind": "TrainingRuntime",
                "name": f"tandem-{request.framework}",
            },
            "trainer": trainer,
            "runtimePatches": [
                {
                    "manager": _MANAGER,
                    "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
                }
            ],
            "activeDeadlineSeconds": cluster.timeout_hours * 3600,
        },
    }


def _pytorch_job(
    cluster: ClusterConfig, request: JobRequest, pod: Pod, pods: int
) -> dict[str, Any]:
    """A master and the other workers; torchrun is told what the operator puts into variables."""
    program = [
        "torchrun",
        *("--nnodes", str(pods)),
        *("--nproc-per-node", str(pod.workers)),
        *("--node-rank", "$(RANK)"),
        *("--master-addr", "$(MASTER_ADDR)"),
        *("--master-port", "$(MASTER_PORT)"),
        *("-m", "torch_pipeline"),
    ]
    template = _template(cluster, request, pod, program, "pytorch")
    replicas = {"Master": _replica(1, template)}
    if pods > 1:
        replicas["Worker"] = _replica(pods - 1, template)
    head = _head(cluster, request, _KINDS[1])
    return {**head, "spec": {"runPolicy": _policy(cluster), "pytorchReplicaSpecs": replicas}}


def _tf_job(cluster: ClusterConfig, request: JobRequest, pod: Pod, pods: int) -> dict[str, Any]:
    """Workers, and under parameter servers a chief and servers without accelerators."""
    program = ["python", "-m", "tf_pipeline"]
    template = _template(cluster, request, pod, program, "tensorflow")
    replicas = {"Worker": _replica(pods, template)}
    if request.layout.parameter_servers:
        idle = Pod(cluster, 0, request.threads_per_worker)
        served = _template(cluster, request, idle, program, "tensorflow")
        replicas["Chief"] = _replica(1, served)
        replicas["PS"] = _replica(request.layout.parameter_servers, served)
    head = _head(cluster, request, _KINDS[2])
    return {**head, "spec": {"runPolicy": _policy(cluster), "tfReplicaSpecs": replicas}}


def _head(cluster: ClusterConfig, request: JobRequest, kind: Kind) -> dict[str, Any]:
    queue = {} if cluster.queue is None else {"kueue.x-k8s.io/queue-name": cluster.queue}
    owned = {} if request.owner is None else {"ownerReferences": [dict(request.owner)]}
    return {
        "apiVersion": f"{kind.group}/{kind.version}",
        "kind": kind.name,
        "metadata": {
            "name": request.name,
            "namespace": cluster.namespace,
            "labels": {
                **_PART_OF,
                "tandem/framework": request.framework,
                WORK_LABEL: request.work,
                **queue,
            },
            **owned,
        },
    }


def _policy(cluster: ClusterConfig) -> dict[str, Any]:
    """All workers start again or none do, so the operator restarts no pod by itself."""
    return {
        "backoffLimit": 0,
        "cleanPodPolicy": "Running",
        "activeDeadlineSeconds": cluster.timeout_hours * 3600,
    }


def _replica(count: int, template: dict[str, Any]) -> dict[str, Any]:
    return {"replicas": count, "restartPolicy": "Never", "template": template}


def _template(
    cluster: ClusterConfig, request: JobRequest, pod: Pod, program: list[str], container: str
) -> dict[str, Any]:
    # The operator gives no pod what Trainer's runtimes do, so all of it stands here.
    annotations = {"sidecar.istio.io/inject": "false"}  # a proxy would outlive the training
    return {
        "metadata": {
            "labels": {**_OF_POD, WORK_LABEL: request.work},
            "annotations": annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": dict(RESTRICTED_POD),
            "terminationGracePeriodSeconds": cluster.grace_seconds,
            **pod.placement,
            "containers": [
                {
                    "name": container,
                    "image": cluster.image(request.framework),
                    "command": _command(request, program),
                    "env": _environment(cluster, request, {}),
                    "resources": pod.resources,
                    "securityContext": dict(RESTRICTED_CONTAINER),
                    "volumeMounts": pod.mounts,
                }
            ],
            "volumes": pod.volumes,
        },
    }


def _command(request: JobRequest, program: list[str]) -> list[str]:
    inline = ["sh", "-c", _INLINE, "sh"] if CONFIG_VARIABLE in request.variables else []
    replicas = request.layout.replicas
    devices = ["--replicas", str(replicas)] if replicas > 1 else []
    return [*inline, *program, *request.arguments, *devices]


def _environment(
    cluster: ClusterConfig, request: JobRequest, places: Mapping[str, str]
) -> list[dict[str, Any]]:
    if request.framework == "tf":
        own = {"TF_CPP_MIN_LOG_LEVEL": "1"}
    else:  # by itself torchrun waits 600 s for other pods, and kills its workers after 30
        own = {
            "PET_RDZV_CONF": f"timeout={cluster.start_minutes * 60}",
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(cluster.grace_seconds - _SECONDS_TO_END, 1)),
        }
    of_gpus = {"NCCL_DEBUG": "WARN"} if cluster.accelerator.kind == "gpu" else {}
    variables = {
        **process_variables(request.threads_per_worker),
        **own,
        **of_gpus,
        **cluster.communication,
        "HOME": "/tmp",  # what libraries cache goes where a pod may write
        "MLFLOW_TRACKING_URI": cluster.tracking_uri,
        **places,
        **request.variables,
    }
    plain = [{"name": name, "value": value} for name, value in sorted(variables.items())]
    return [*plain, *tracking_credentials(cluster)]
