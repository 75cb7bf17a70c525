"""Training jobs of two nodes from our own runtimes: a container per pod, each with its address."""

import time

import pytest
import yaml
from kubernetes import client as kubernetes

from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import Dataset
from pipelines.runs import PREEMPTED_TAG
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.train import train_on_cluster
from pipelines.tracking import read_runs
from pipelines.training_run import Listener
from tests.docker.cluster import ContainerCluster
from tests.docker.engine import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]


@pytest.fixture
def api(cluster: ContainerCluster, submitted: Config) -> KubernetesApi:
    """The cluster's, as the person who submits reaches it."""
    configuration = kubernetes.Configuration()
    configuration.host = f"https://{cluster.address}:{cluster.port}"
    configuration.ssl_ca_cert = str(cluster.service_account / "ca.crt")
    token = (cluster.service_account / "token").read_text()
    configuration.api_key = {"authorization": token}
    configuration.api_key_prefix = {"authorization": "Bearer"}
    return KubernetesApi(submitted.cluster.namespace, configuration)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_nodes_train_one_model(
    api: KubernetesApi,
    cluster: ContainerCluster,
    submitted: Config,
    tracked: Config,
    dataset: Dataset,
    framework: Framework,
) -> None:
    steps: list[tuple[int, int]] = []
    listener = Listener(on_progress=lambda _cell, step, of: steps.append((step, of)))

    run_id, found = train_on_cluster(submitted, framework, 2, "by-hand", listener, api=api)

    assert steps[-1][1] == 300, "progress is told as it goes"
    [run] = [run for run in read_runs(tracked) if run.run_id == run_id]
    assert run.status == "FINISHED"
    assert (run.params["framework"], run.params["workers"]) == (framework, "2")
    assert run.metrics["eval_accuracy"] == found["eval_accuracy"] > 0.9
    job = [job for name, job in cluster.jobs.items() if framework in name][-1]
    assert job["spec"]["trainer"]["numNodes"] == 2
    assert job["metadata"]["name"] not in cluster.pods, "removed when done"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_goes_on_in_other_pods_when_a_node_is_drained(
    api: KubernetesApi,
    cluster: ContainerCluster,
    submitted: Config,
    tracked: Config,
    dataset: Dataset,
    framework: Framework,
) -> None:
    longer = submitted.training.model_copy(update={"steps": 1500})
    config = submitted.model_copy(update={"training": longer})
    before, drained, notes = set(cluster.jobs), list[str](), list[str]()

    def drain(_cell: object, step: int, _of: int) -> None:
        if step >= 100 and not drained:
            [(_, second)] = [pods for name, pods in cluster.pods.items() if name not in before]
            drained.append(second)
            cluster.evict(second)

    listener = Listener(on_progress=drain, on_note=notes.append)

    run_id, found = train_on_cluster(config, framework, 2, "drained", listener, api=api)

    first, second = [name for name in cluster.jobs if name not in before]
    assert [note for note in notes if "preempted, and saved after step" in note], notes
    [run] = [run for run in read_runs(tracked) if run.run_id == run_id]
    assert run.status == "FINISHED"
    assert 100 <= int(run.tags[PREEMPTED_TAG]) < 1500
    assert run.metrics["eval_accuracy"] == found["eval_accuracy"] > 0.9
    assert not {first, second} & cluster.pods.keys(), "removed when done"


def test_the_guides_check_finds_the_image_the_tracking_server_and_the_claim(
    cluster: ContainerCluster,
) -> None:
    job = yaml.safe_load((PROJECT_ROOT / "infra" / "kubernetes" / "check.yaml").read_text())
    name = job["metadata"]["name"]

    cluster.create(job)

    while not (conditions := cluster.status(name)["status"]["conditions"]):
        time.sleep(0.5)
    [pod] = cluster.pods[name]
    printed = docker("logs", pod)
    assert conditions[0]["type"] == "Complete", printed
    assert "TensorFlow" in printed
    assert printed.endswith("are as a training job needs them.")
    assert (cluster.claim / "tandem" / ".check").exists()
    cluster.delete(name)
