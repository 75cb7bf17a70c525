import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.strategies import FRAMEWORKS
from pipelines.submit.submission import write_submission
from pipelines.submit.train import train_job_request
from pipelines.submit.training_job import (
    CONFIG_VARIABLE,
    WORK_LABEL,
    JobRequest,
    build_job,
    job_name,
    kind_of,
)

ON_GPUS = (
    "training.device=auto",
    "cluster.accelerator={kind: gpu, node_selector: {nvidia.com/gpu.product: H100}}",
    "cluster.communication={NCCL_SOCKET_IFNAME: eth0}",
)
EVERYTHING = (
    *ON_GPUS,
    "cluster.spot=gke",
    "cluster.queue=tandem",
    "cluster.nodes=[node-a, node-b]",
    "cluster.tolerations=[{key: team, operator: Equal, value: us, effect: NoExecute}]",
)
BY_OPERATOR = "cluster.job_api=training-operator"
APIS = ("cluster.job_api=trainer", BY_OPERATOR)


def request(config: Config, framework: Any, workers: int, **more: Any) -> JobRequest:
    return JobRequest(
        name=job_name("study", framework, mark="0000"),
        framework=framework,
        layout=Layout.of(config, framework, workers),
        arguments=["train", "--config", "/mnt/tandem/config.yaml", "--output", "/mnt/tandem/run"],
        **more,
    )


def job_of(config: Config, framework: Any, workers: int, **more: Any) -> dict[str, Any]:
    return build_job(config.cluster, request(config, framework, workers, **more))


def pods_of(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of every kind of pod: what the job says of it, its one container flattened into it."""
    if job["kind"] == "TrainJob":
        [patch] = job["spec"]["runtimePatches"]
        [node] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        template = node["template"]["spec"]["template"]
        trainer = job["spec"]["trainer"]
        [container] = template["spec"]["containers"]
        asked = {"resources": trainer["resourcesPerNode"], **trainer, **container}
        yield {**template["spec"], "labels": template["metadata"]["labels"], "container": asked}
        return
    replicas = job["spec"].get("pytorchReplicaSpecs") or job["spec"]["tfReplicaSpecs"]
    for replica in replicas.values():
        template = replica["template"]
        [container] = template["spec"]["containers"]
        yield {**template["spec"], "labels": template["metadata"]["labels"], "container": container}


def environment_of(pod: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in pod["container"]["env"]}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("overrides", [(), ON_GPUS, EVERYTHING])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_kind_of_job_meets_its_published_schema(
    load_submitted: Callable[..., Config],
    validate_job: Callable[[dict[str, Any]], None],
    api: str,
    overrides: tuple[str, ...],
    framework: Any,
) -> None:
    config = load_submitted(api, *overrides)

    for workers in (1, 2, 8):
        validate_job(job_of(config, framework, workers))


def test_the_strict_schema_finds_a_misspelt_field(
    load_submitted: Callable[..., Config], validate_job: Callable[[dict[str, Any]], None]
) -> None:
    import jsonschema

    for api, where in zip(APIS, ("trainer", "pytorchReplicaSpecs"), strict=True):
        job = job_of(load_submitted(api), "torch", 2)
        job["spec"][where]["imagePolicy"] = "Always"
        with pytest.raises(jsonschema.ValidationError):
            validate_job(job)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_pod_meets_the_restricted_standard(
    load_submitted: Callable[..., Config], api: str, framework: Any
) -> None:
    for pod in pods_of(job_of(load_submitted(api, *EVERYTHING), framework, 2)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        of_container = pod["container"]["securityContext"]
        assert of_container["allowPrivilegeEscalation"] is False
        assert of_container["readOnlyRootFilesystem"] is True
        assert of_container["capabilities"] == {"drop": ["ALL"]}
        allowed = {"emptyDir", "persistentVolumeClaim"}
        assert {key for volume in pod["volumes"] for key in volume} <= allowed | {"name"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def test_trainers_jobs_rest_on_tandems_own_runtimes(load_submitted: Callable[..., Config]) -> None:
    config = load_submitted()

    for framework in FRAMEWORKS:
        job = job_of(config, framework, 2)
        assert job["spec"]["runtimeRef"]["name"] == f"tandem-{framework}"
        assert job["spec"]["runtimeRef"]["kind"] == "TrainingRuntime"
        assert job["spec"]["trainer"]["numNodes"] == 2
        assert job["metadata"]["namespace"] == "tandem"


def test_torch_is_started_by_torchrun_and_tensorflow_by_what_makes_tf_config(
    load_submitted: Callable[..., Config],
) -> None:
    config = load_submitted()
    stage = ["train", "--config", "/mnt/tandem/config.yaml", "--output", "/mnt/tandem/run"]

    torch, tf = (job_of(config, each, 2)["spec"]["trainer"] for each in ("torch", "tf"))

    assert torch["command"] == ["torchrun", "-m", "torch_pipeline", *stage]
    assert torch["numProcPerNode"] == 1
    assert tf["command"] == ["python", "-m", "pipelines.pod", "tf", *stage]
    assert "numProcPerNode" not in tf
    variables = {each["name"]: each.get("value") for each in tf["env"]}
    assert (variables["TANDEM_NODES"], variables["TANDEM_PROCESSES_PER_NODE"]) == ("2", "1")


# What the installed torchrun makes of its arguments and variables.
TORCHRUN = """
import json, sys
from torch.distributed.run import config_from_args, parse_args

config, _, _ = config_from_args(parse_args(sys.argv[1:]))
print(json.dumps([config.shutdown_timeout, config.rdzv_configs["timeout"]]))
"""


def test_torchrun_waits_for_late_pods_and_lets_workers_save_as_long_as_the_cluster_does(
    load_submitted: Callable[..., Config],
) -> None:
    as_configured = ("cluster.grace_seconds=300", "cluster.start_minutes=45")
    by_trainer, by_operator = (
        environment_of(next(pods_of(job_of(load_submitted(api, *as_configured), "torch", 2))))
        for api in APIS
    )
    given = {name: value for name, value in by_trainer.items() if value is not None}

    ended = subprocess.run(
        [sys.executable, "-c", TORCHRUN, "-m", "torch_pipeline"],
        env={**os.environ, **given},
        capture_output=True,
        check=True,
    )

    assert json.loads(ended.stdout) == [295, "2700"]
    assert by_operator == by_trainer


def test_a_short_grace_leaves_torchrun_a_second(load_submitted: Callable[..., Config]) -> None:
    pod = next(pods_of(job_of(load_submitted("cluster.grace_seconds=3"), "torch", 2)))

    assert environment_of(pod)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "1"


def test_tensorflows_pods_wait_as_long_for_late_ones_as_the_step_does(
    load_submitted: Callable[..., Config],
) -> None:
    [pod] = pods_of(job_of(load_submitted("cluster.start_minutes=45"), "tf", 2))

    assert environment_of(pod)["TANDEM_START_SECONDS"] == "2700"


@pytest.mark.parametrize("strategy", ["deepspeed_zero1", "deepspeed_zero3", "fsdp"])
def test_deepspeed_and_fsdp_are_started_as_ddp_is(
    load_submitted: Callable[..., Config], strategy: str
) -> None:
    assert job_of(load_submitted(f"torch.strategy={strategy}"), "torch", 2) == job_of(
        load_submitted(), "torch", 2
    )


def test_workers_that_share_a_pod_share_what_it_asks_for(
    load_submitted: Callable[..., Config],
) -> None:
    config = load_submitted(*ON_GPUS, "cluster.workers_per_pod=4", "study.threads_per_worker=2")

    for framework in FRAMEWORKS:
        job = job_of(config, framework, 8, threads_per_worker=2)
        [pod] = pods_of(job)
        asked = pod["container"]["resources"]
        assert job["spec"]["trainer"]["numNodes"] == 2
        assert asked["limits"] == {"cpu": "8", "memory": "16Gi", "nvidia.com/gpu": "4"}
        assert asked["requests"] == asked["limits"]
    assert job_of(config, "torch", 8)["spec"]["trainer"]["numProcPerNode"] == 4
    [of_tf] = pods_of(job_of(config, "tf", 8))
    assert environment_of(of_tf)["TANDEM_PROCESSES_PER_NODE"] == "4"
    assert job_of(config, "torch", 2)["spec"]["trainer"]["numNodes"] == 1


@pytest.mark.parametrize(
    ("each", "workers", "together"),
    [
        ("4194304Ki", 1, "4194304Ki"),
        ("2500Mi", 400, "1000000Mi"),
        ("1.5Gi", 3, "4.5Gi"),
        ("4294967296", 2, "8589934592"),
    ],
)
def test_memory_keeps_its_unit_however_large_its_number(
    load_submitted: Callable[..., Config], each: str, workers: int, together: str
) -> None:
    config = load_submitted(
        f"cluster.memory_per_worker='{each}'", f"cluster.workers_per_pod={workers}"
    )

    [pod] = pods_of(job_of(config, "torch", workers))

    assert pod["container"]["resources"]["limits"]["memory"] == together


def test_gpus_come_with_their_nodes_taints_images_and_nccl(
    load_submitted: Callable[..., Config],
) -> None:
    [pod] = pods_of(job_of(load_submitted(*ON_GPUS), "torch", 2))

    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "H100"}
    gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert pod["tolerations"] == [gpus]
    assert pod["container"]["image"] == "tandem-torch:0.1.0-cuda"
    assert environment_of(pod)["NCCL_SOCKET_IFNAME"] == "eth0"
    assert environment_of(pod)["NCCL_DEBUG"] == "WARN"


def test_a_tpu_is_one_pod_that_one_process_feeds(load_submitted: Callable[..., Config]) -> None:
    config = load_submitted(
        "tf.strategy=tpu",
        "cluster.accelerator={kind: tpu, tpu_type: tpu-v5-lite-podslice, topology: 2x4}",
    )

    job = job_of(config, "tf", 8)

    [pod] = pods_of(job)
    assert job["spec"]["trainer"]["numNodes"] == 1
    assert pod["container"]["command"][-2:] == ["--replicas", "8"]
    assert pod["container"]["resources"]["limits"]["google.com/tpu"] == "8"
    assert environment_of(pod)["TANDEM_PROCESSES_PER_NODE"] == "1"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "2x4",
    }
    with pytest.raises(InputError, match=r"cluster\.accelerator"):
        job_of(config, "torch", 1)


def test_spot_nodes_queue_and_named_nodes_are_said_to_the_scheduler(
    load_submitted: Callable[..., Config],
) -> None:
    job = job_of(load_submitted(*EVERYTHING), "tf", 2)

    [pod] = pods_of(job)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tandem"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    keys = {each["key"] for each in pod["tolerations"]}
    assert keys == {"team", "nvidia.com/gpu", "cloud.google.com/gke-spot"}
    affinity = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    [term] = affinity["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["node-a", "node-b"]
    assert pod["terminationGracePeriodSeconds"] == 120


def test_credentials_are_named_and_never_written(load_submitted: Callable[..., Config]) -> None:
    for api in APIS:
        [pod] = pods_of(job_of(load_submitted(api), "torch", 1))
        named = [each for each in pod["container"]["env"] if "valueFrom" in each]
        assert [each["name"] for each in named] == [
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
        ]
        for each in named:
            assert each["valueFrom"]["secretKeyRef"]["name"] == "tandem-tracking"


def test_both_frameworks_pods_have_the_same_threads_allocator_memory_and_volumes(
    load_submitted: Callable[..., Config],
) -> None:
    config = load_submitted()
    pods = [next(pods_of(job_of(config, each, 2, threads_per_worker=3))) for each in FRAMEWORKS]

    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MALLOC_MMAP_MAX_"):
        tf, torch = (environment_of(pod)[name] for pod in pods)
        assert tf == torch
    assert environment_of(pods[0])["OMP_NUM_THREADS"] == "3"
    assert pods[0]["volumes"] == pods[1]["volumes"]
    assert pods[0]["container"]["resources"] == pods[1]["container"]["resources"]
    assert {each["mountPath"] for each in pods[0]["container"]["volumeMounts"]} == {
        "/mnt/tandem",
        "/dev/shm",
        "/tmp",
    }


def test_the_operators_jobs_have_a_master_or_servers(load_submitted: Callable[..., Config]) -> None:
    torch = job_of(load_submitted(BY_OPERATOR), "torch", 4)["spec"]["pytorchReplicaSpecs"]
    alone = job_of(load_submitted(BY_OPERATOR), "torch", 1)["spec"]["pytorchReplicaSpecs"]
    served = job_of(
        load_submitted(BY_OPERATOR, "tf.strategy=parameter_server", "tf.parameter_servers=2"),
        "tf",
        3,
    )

    assert {name: each["replicas"] for name, each in torch.items()} == {"Master": 1, "Worker": 3}
    assert [*alone] == ["Master"]
    replicas = served["spec"]["tfReplicaSpecs"]
    assert {name: each["replicas"] for name, each in replicas.items()} == {
        "Worker": 3,
        "Chief": 1,
        "PS": 2,
    }
    assert kind_of(served).rank0["training.kubeflow.org/replica-type"] == "chief"
    [container] = torch["Master"]["template"]["spec"]["containers"]
    assert container["command"][:3] == ["torchrun", "--nnodes", "4"]


@pytest.mark.parametrize(
    ("overrides", "framework", "workers", "field"),
    [
        (("tf.strategy=parameter_server",), "tf", 2, "cluster.job_api"),
        ((*ON_GPUS, "cluster.workers_per_pod=4"), "torch", 6, "cluster.workers_per_pod"),
        ((BY_OPERATOR, "cluster.workers_per_pod=2"), "tf", 2, "cluster.workers_per_pod"),
    ],
)
def test_what_a_job_cannot_be_is_refused_by_its_field(
    load_submitted: Callable[..., Config],
    overrides: tuple[str, ...],
    framework: Any,
    workers: int,
    field: str,
) -> None:
    with pytest.raises(InputError, match=field):
        job_of(load_submitted(*overrides), framework, workers)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (("network.hosts=2",), "network.hosts"),
        (("training.device=cpu", "cluster.accelerator={kind: gpu}"), "training.device"),
        (
            ("cluster.accelerator={kind: tpu, tpu_type: v5, topology: 2x4}",),
            "tf.strategy",
        ),
    ],
)
def test_a_submission_that_no_cluster_could_run_is_refused(
    load_submitted: Callable[..., Config], tmp_path: Any, overrides: tuple[str, ...], field: str
) -> None:
    with pytest.raises(InputError, match=field):
        write_submission(load_submitted(*overrides), ["study"], tmp_path)


def test_a_configuration_goes_along_in_a_variable_where_no_file_has_it(
    load_submitted: Callable[..., Config],
) -> None:
    job = job_of(load_submitted(), "tf", 1, variables={CONFIG_VARIABLE: "name: x"})

    trainer = job["spec"]["trainer"]
    assert trainer["command"][:2] == ["sh", "-c"]
    assert trainer["command"][4:7] == ["python", "-m", "pipelines.pod"]
    assert {"name": CONFIG_VARIABLE, "value": "name: x"} in trainer["env"]


def test_a_run_outside_any_study_has_a_folder_of_its_own_and_is_no_cell(
    load_submitted: Callable[..., Config],
) -> None:
    request = train_job_request(load_submitted(), "torch", 2, "20260131T120000Z")

    said = dict(zip(request.arguments, request.arguments[1:], strict=False))
    assert "20260131T120000Z" in said["--output"]
    assert said["--study-id"] == ""


def test_a_jobs_name_is_one_that_kubernetes_takes_and_tells_jobs_apart() -> None:
    long = job_name("torch", "train", "torch-deepspeed_zero3-strong-x1024-r12-attempt2")

    assert len(long) <= 40
    assert long.startswith("torch-train-")
    assert "r12-attempt2-" in long
    assert job_name("3rd study", mark="0000") == "t3rd-study-0000"
    assert job_name("a") != job_name("a")


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_job_and_its_pods_say_what_they_work_at(
    load_submitted: Callable[..., Config], api: str, framework: Any
) -> None:
    config = load_submitted(api)

    job = job_of(config, framework, 2)

    work = request(config, framework, 2).work
    assert job["metadata"]["labels"][WORK_LABEL] == work
    assert {pod["labels"][WORK_LABEL] for pod in pods_of(job)} == {work}


def test_all_attempts_at_a_cell_bear_one_label_and_other_cells_another() -> None:
    def work(output: str) -> str:
        arguments = ["train", "--config", "c.yaml", "--output", output]
        return JobRequest(job_name("x"), "torch", Layout(workers=2), arguments).work

    first = work("/mnt/tandem/studies/1/torch-ddp-weak-x2-r1")

    assert first == work("/mnt/tandem/studies/1/torch-ddp-weak-x2-r1-attempt2")
    assert first == work("/mnt/tandem/studies/1/torch-ddp-weak-x2-r1-attempt13")
    assert first != work("/mnt/tandem/studies/1/torch-ddp-weak-x2-r2")
    assert first != work("/mnt/tandem/studies/2/torch-ddp-weak-x2-r1")
    assert len(first) == 16
