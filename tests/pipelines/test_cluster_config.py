from collections.abc import Callable

import pytest

from pipelines.cluster_config import CLUSTER_VARIABLE, ClusterConfig
from pipelines.config import Config
from pipelines.errors import InputError


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cluster.tracking_uri=http://me:secret@mlflow", "cluster.tracking_secret"),
        ("cluster.host=https://me:secret@kfp", "--token-file"),
        ("cluster.communication={PATH: /}", "no variable of NCCL's or gloo's"),
        ("cluster.accelerator={kind: tpu}", "a tpu needs tpu_type and topology"),
        ("cluster.accelerator={topology: 2x4}", "are a tpu's"),
        ("cluster.mount_path=data", "an absolute path"),
        ("cluster.memory_per_worker=lots", "cluster.memory_per_worker"),
        ("cluster.namespace=Team A", "cluster.namespace"),
        ("cluster.spot=azure", "cluster.spot"),
        ("cluster.nodez=[a]", "did you mean 'nodes'?"),
    ],
)
def test_what_a_cluster_cannot_take_is_refused_by_name(
    load_quickstart: Callable[..., Config], override: str, said: str
) -> None:
    with pytest.raises(InputError) as refusal:
        load_quickstart(override)

    assert "cluster" in str(refusal.value)
    assert said in str(refusal.value)
    assert "secret@" not in str(refusal.value)


def test_only_a_step_of_a_pipeline_is_on_a_cluster() -> None:
    cluster = ClusterConfig(namespace="team", nodes=["a", "b"])

    assert ClusterConfig.of_this_step({}) is None
    assert ClusterConfig.of_this_step({CLUSTER_VARIABLE: cluster.model_dump_json()}) == cluster
    assert ClusterConfig.of_this_step({CLUSTER_VARIABLE: "{}"}) == ClusterConfig()


def test_images_for_gpus_have_a_tag_of_their_own() -> None:
    on_gpus = ClusterConfig.model_validate({"accelerator": {"kind": "gpu"}})

    assert ClusterConfig().image("torch") == "tandem-torch:0.1.0"
    assert on_gpus.image("torch") == "tandem-torch:0.1.0-cuda"
    assert on_gpus.image("core") == "tandem-core:0.1.0"


@pytest.mark.parametrize(("cpus", "threads"), [(None, 1), ("4", 4), ("2500m", 2), ("500m", 1)])
def test_a_step_of_a_dag_has_a_thread_per_whole_cpu(cpus: str | None, threads: int) -> None:
    assert ClusterConfig(cpu_per_worker=cpus).threads_per_worker == threads
