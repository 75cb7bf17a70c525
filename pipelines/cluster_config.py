"""The ``cluster`` section of the configuration: where on Kubernetes a study runs, and how.

Nothing here is secret: credentials are named by the Kubernetes secret that holds them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from pipelines.data_config import Section

__all__ = ["CLUSTER_VARIABLE", "AcceleratorConfig", "ClusterConfig", "ImagesConfig", "Toleration"]

CLUSTER_VARIABLE = "TANDEM_CLUSTER"
"""In a step of a submitted pipeline: the section as JSON. What the step trains are then pods."""

DnsName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
_COMMUNICATION = re.compile(r"(NCCL|TORCH_NCCL|GLOO)_[A-Z0-9_]+")


def _without_credentials(uri: str) -> str:
    if re.search(r"//[^/@]*@", uri):
        raise ValueError(
            "must not hold credentials; name the secret that has them (cluster.tracking_secret), "
            "or give a token (tandem submit --token-file)"
        )
    return uri


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute():
        raise ValueError(f"must be an absolute path inside the containers, not {path!r}")
    return path


def _about_communication(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if not _COMMUNICATION.fullmatch(name):
            raise ValueError(f"holds {name}, which is no variable of NCCL's or gloo's")
    return variables


class ImagesConfig(Section):
    """The images that `make images` builds, as the cluster's nodes find them."""

    tf: str = "tandem-tf"
    """TensorFlow's, without a tag; with the registry before it where there is one."""
    torch: str = "tandem-torch"
    """PyTorch's."""
    core: str = "tandem-core"
    """The one for ingestion, comparison, and the steps that wait for training jobs."""
    tag: str = "0.1.0"
    """Tag of all three, which are built from one state of the code."""
    gpu_tag: str = "0.1.0-cuda"
    """``accelerator.kind: gpu``: tag of the frameworks' two, in its place."""


class AcceleratorConfig(Section):
    """What each worker trains on besides its CPU."""

    kind: Literal["none", "gpu", "tpu"] = "none"
    """``gpu``: ``nvidia.com/gpu``; ``tpu``: ``google.com/tpu``, under ``tf.strategy: tpu`` only."""
    per_worker: PositiveInt = 1
    """GPUs, or chips of a TPU, of each worker."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that have them, such as ``nvidia.com/gpu.product``."""
    tpu_type: str | None = None
    """``tpu``: the nodes' ``cloud.google.com/gke-tpu-accelerator``, such as
    ``tpu-v5-lite-podslice``."""
    topology: Annotated[str, Field(pattern=r"^\d+x\d+(x\d+)?$")] | None = None
    """``tpu``: the nodes' ``cloud.google.com/gke-tpu-topology``, such as ``2x4``; one host's."""

    @model_validator(mode="after")
    def _tpus_say_which(self) -> Self:
        if self.kind == "tpu" and not (self.tpu_type and self.topology):
            raise ValueError("a tpu needs tpu_type and topology")
        return self


class Toleration(Section):
    """A taint that training pods tolerate."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ClusterConfig(Section):
    """Where on Kubernetes a submitted study runs, and how."""

    host: Annotated[str, AfterValidator(_without_credentials)] | None = None
    """Address of Kubeflow Pipelines; ``tandem submit --host`` overrides it."""
    namespace: DnsName = "tandem"
    """Kubernetes namespace of the runs, their training jobs and their claim."""
    images: ImagesConfig = ImagesConfig()
    service_account: DnsName | None = None
    """Whom the pipelines' steps run as: it may create training jobs and read their logs; null: as
    Kubeflow Pipelines has it, ``pipeline-runner``, or ``default-editor`` in a profile."""
    claim: DnsName = "tandem-data"
    """Persistent volume claim for datasets and runs, which many pods write to
    (``ReadWriteMany``)."""
    mount_path: Annotated[str, AfterValidator(_absolute)] = "/mnt/tandem"
    """Where every container has that claim."""
    pipeline_root: str | None = None
    """Where Kubeflow Pipelines keeps what steps hand to each other, such as ``gs://BUCKET/tandem``;
    null: its own default."""
    tracking_uri: Annotated[str, AfterValidator(_without_credentials)] = "http://mlflow:5000"
    """MLflow's server, as pods reach it."""
    tracking_secret: DnsName | None = "tandem-tracking"
    """Secret with that server's user and password, under the names of MLflow's variables
    (``MLFLOW_TRACKING_USERNAME``, ``MLFLOW_TRACKING_PASSWORD``); null: it asks for none."""
    job_api: Literal["trainer", "training-operator"] = "trainer"
    """``trainer``: Kubeflow Trainer v2's TrainJob, with Tandem's own runtimes;
    ``training-operator``: v1's PyTorchJob and TFJob, for clusters that have only those."""
    workers_per_pod: PositiveInt = 1
    """Workers that share a pod, and so its GPUs' links."""
    cpu_per_worker: Quantity | None = None
    """CPUs of each worker; null: ``study.threads_per_worker``."""
    memory_per_worker: Quantity = "4Gi"
    """Memory of each worker."""
    shared_memory: Quantity = "1Gi"
    """``/dev/shm`` of each pod, which counts as its memory."""
    accelerator: AcceleratorConfig = AcceleratorConfig()
    node_selector: dict[str, str] = {}
    """Labels of the nodes that training pods may run on."""
    nodes: list[str] = []
    """Names of the nodes that training pods are held to, so that every cell of a study runs on the
    same ones; empty: any."""
    tolerations: list[Toleration] = []
    """Taints that training pods tolerate, besides their accelerator's own."""
    spot: Literal["none", "gke", "eks", "aks"] = "none"
    """Whose spot nodes training pods ask for; of a run that is preempted see ``max_restarts``."""
    max_restarts: Annotated[int, Field(ge=0)] = 3
    """How often a preempted run's job is created again; it goes on with what it has saved, but a
    study's cell begins anew."""
    grace_seconds: PositiveInt = 120
    """What a pod that is asked to end gets to save."""
    queue: DnsName | None = None
    """Kueue's LocalQueue that training jobs wait in; null: none."""
    communication: Annotated[dict[str, str], AfterValidator(_about_communication)] = {}
    """Variables of NCCL's and gloo's for every worker, such as ``NCCL_SOCKET_IFNAME: eth0``."""
    parallelism: PositiveInt = 1
    """Cells of a study that run at once; 1: one after the other, since cells that share a node
    disturb each other."""
    start_minutes: PositiveInt = 60
    """How long a training job may wait for its pods before the step gives up."""
    timeout_hours: PositiveInt = 24
    """How long a training job may take in all."""

    @classmethod
    def of_this_step(cls, environment: Mapping[str, str] = os.environ) -> "ClusterConfig | None":
        """The cluster that this process is a step of a pipeline in; None anywhere else."""
        said = environment.get(CLUSTER_VARIABLE)
        return None if said is None else cls.model_validate_json(said)

    @property
    def threads_per_worker(self) -> int:
        """Compute threads for the CPUs that a worker of a DAG's training step has."""
        asked = self.cpu_per_worker or "1"
        cpus = float(asked.removesuffix("m")) / (1000 if asked.endswith("m") else 1)
        return max(1, int(cpus))

    def image(self, name: Literal["tf", "torch", "core"]) -> str:
        """One of the images, with its tag."""
        on_gpus = self.accelerator.kind == "gpu" and name != "core"
        tag = self.images.gpu_tag if on_gpus else self.images.tag
        return f"{getattr(self.images, name)}:{tag}"

    @model_validator(mode="after")
    def _a_topology_is_a_tpus(self) -> Self:
        if self.accelerator.kind != "tpu" and (
            self.accelerator.topology or self.accelerator.tpu_type
        ):
            raise ValueError("accelerator.tpu_type and topology are a tpu's")
        return self
