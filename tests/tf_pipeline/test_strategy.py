import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.recorder import Recorder
from pipelines.saver import Unsaved
from pipelines.strategies import STRATEGIES
from pipelines.worker import Worker
from pipelines.workloads import Vision
from tf_pipeline.strategy import build_strategy, describe_software, fence, gather_over_workers
from tf_pipeline.train import train

ALONE = ("one_device", "mirrored", "multi_worker_mirrored")
"""Strategies with which one process may train without others around it."""

GATHER = """
import json
from pathlib import Path
import numpy as np
from pipelines.config import load_config
from pipelines.worker import Worker
from tf_pipeline.strategy import build_strategy, gather_over_workers

worker = Worker.from_environment()
strategy = build_strategy(load_config(Path("config.yaml")), worker)
mine = np.array([worker.rank + 0.1, -(10.0**300), 2.0**53])
gathered = [gather_over_workers(strategy, values) for values in (mine, mine[:1])]
print(json.dumps([[str(found.dtype), found.tolist()] for found in gathered]))
"""

TRAIN = """
import json
from pathlib import Path
import numpy as np
from pipelines.config import load_config
from pipelines.ingest import Dataset
from pipelines.recorder import Recorder
from pipelines.saver import Unsaved
from pipelines.worker import Worker
from pipelines.workloads import get_workload
from tf_pipeline.strategy import build_strategy, fence, gather_over_workers
from tf_pipeline.train import train

def run(replicas, config, traced):
    worker, recorder = Worker.from_environment(replicas=replicas), Recorder(traced=traced)
    workload = get_workload(config, Dataset.open(config.dataset_dir).manifest)
    strategy = build_strategy(config, worker)
    fence(strategy)
    train(config, workload, strategy, worker, recorder, Unsaved())
    losses = gather_over_workers(strategy, np.array(recorder.losses))
    return {
        "rows": len(losses),
        "losses": losses.mean(axis=0).tolist(),
        "gradient_norms": recorder.gradient_norms,
        "weight_norms": recorder.weight_norms,
    }
"""

TOGETHER = f"""{TRAIN}
print(json.dumps(run(1, load_config(Path("config.yaml")), True)))
"""

ON_TWO_PARTS_OF_A_CPU = f"""{TRAIN}
import tensorflow as tf
from unittest import mock

config = load_config(Path("config.yaml"), ["tf.strategy=mirrored", "tf.collectives=auto"])
found = {{"mirrored": run(2, config, True)}}
settings = ["tf.strategy=tpu", "tf.steps_per_call=4", "training.compile=default"]
config = load_config(Path("config.yaml"), settings)
with (
    mock.patch.object(tf.distribute.cluster_resolver, "TPUClusterResolver") as resolver,
    mock.patch.object(tf.config, "experimental_connect_to_cluster") as connect,
    mock.patch.object(tf.tpu.experimental, "initialize_tpu_system") as initialize,
    mock.patch.object(
        tf.distribute,
        "TPUStrategy",
        lambda _: tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice()
        ),
    ),
):
    found["tpu"] = run(2, config, False)
resolver.assert_called_once_with(tpu="local")
connect.assert_called_once_with(resolver.return_value)
initialize.assert_called_once_with(resolver.return_value)
print(json.dumps(found))
"""


@pytest.mark.parametrize("name", ALONE)
def test_every_strategy_of_a_single_process_gathers_from_one_worker(
    load_shrunk: Callable[..., Config], name: str
) -> None:
    strategy = build_strategy(named(load_shrunk, name), Worker())
    fence(strategy)

    found = gather_over_workers(strategy, np.array([0.1, 2.0**53]))

    assert {*ALONE, "parameter_server", "tpu"} == set(STRATEGIES["tf"])
    assert found.dtype == np.float64
    assert found.tolist() == [[0.1, 2.0**53]]


def test_every_strategy_of_a_single_process_trains_one_worker_alike(
    load_shrunk: Callable[..., Config], workload: Vision, dataset: Dataset
) -> None:
    losses = {}
    for name in ALONE:
        config, recorder = named(load_shrunk, name), Recorder()
        train(config, workload, build_strategy(config, Worker()), Worker(), recorder, Unsaved())
        losses[name] = recorder.losses

    first, *others = losses.values()
    assert len(first) == config.training.steps
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-5)


def test_two_workers_gather_each_others_vectors_by_rank_to_the_last_bit(
    run_workers: Callable[[str, int], list[str]], config: Config, tmp_path: Path
) -> None:
    config.dump(tmp_path / "config.yaml")

    printed = run_workers(GATHER, 2)

    expected = [
        ["float64", [[0.1, -(10.0**300), 2.0**53], [1.1, -(10.0**300), 2.0**53]]],
        ["float64", [[0.1], [1.1]]],
    ]
    assert [json.loads(output.splitlines()[-1]) for output in printed] == [expected] * 2


def test_two_replicas_train_as_one_with_the_same_global_batch(
    load_shrunk: Callable[..., Config],
    workload: Vision,
    dataset: Dataset,
    run_workers: Callable[[str, int], list[str]],
    tmp_path: Path,
) -> None:
    alone = named(load_shrunk, "one_device", "training.batch_size_per_worker=32")
    recorder = Recorder(traced=True)
    train(alone, workload, build_strategy(alone, Worker()), Worker(), recorder, Unsaved())
    named(load_shrunk, "multi_worker_mirrored", "tf.collectives=ring").dump(
        tmp_path / "config.yaml"
    )

    together = [json.loads(output.splitlines()[-1]) for output in run_workers(TOGETHER, 2)]
    (printed,) = run_workers(ON_TWO_PARTS_OF_A_CPU, 1)
    found = json.loads(printed.splitlines()[-1])

    assert together[0] == together[1]
    assert [each["rows"] for each in (together[0], found["mirrored"], found["tpu"])] == [2, 1, 1]
    for each in (together[0], found["mirrored"], found["tpu"]):
        np.testing.assert_allclose(each["losses"], recorder.losses, rtol=1e-5)
    for each in (together[0], found["mirrored"]):
        np.testing.assert_allclose(each["gradient_norms"], recorder.gradient_norms, rtol=1e-5)
        np.testing.assert_allclose(each["weight_norms"], recorder.weight_norms, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "worker", "message"),
    [
        (["tf.strategy=parameter_server"], Worker(), "tf.strategy: parameter_server needs a"),
        (
            ["tf.strategy=parameter_server", "tf.steps_per_call=2"],
            Worker(role="coordinator"),
            "tf.steps_per_call: under parameter_server every update",
        ),
        (["tf.strategy=tpu"], Worker(), "tf.tpu: no TPU answers to 'local' (TPUs not found"),
        (["tf.strategy=tpu", "tf.tpu=grpc://127.0.0.1:1"], Worker(), "tf.tpu: no TPU answers to"),
        (["tf.collectives=nccl"], Worker(), "tf.collectives: nccl needs GPUs"),
        (
            ["tf.strategy=mirrored", "tf.collectives=ring"],
            Worker(),
            "tf.collectives: mirrored has no ring",
        ),
        (
            ["tf.strategy=one_device"],
            Worker(replicas=2),
            "tf.strategy: one_device finds devices for 1 replicas in step, but 2 are to train",
        ),
    ],
)
def test_a_strategy_that_cannot_train_here_is_refused_in_one_line(
    load_shrunk: Callable[..., Config], settings: list[str], worker: Worker, message: str
) -> None:
    config = load_shrunk("study.workers=[1]", *settings)

    with pytest.raises(InputError) as refused:
        build_strategy(config, worker)

    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_the_software_is_described_by_version_and_class_of_build() -> None:
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "")
    build = f"cuda{cuda.split('.')[0]}" if tf.config.list_physical_devices("GPU") else "cpu"

    assert describe_software() == {
        "framework_version": f"tensorflow {tf.__version__}",
        "software_build": build,
    }


def named(load_shrunk: Callable[..., Config], name: str, *settings: str) -> Config:
    return load_shrunk(f"tf.strategy={name}", "study.workers=[1]", *settings)
