import json
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.recorder import Recorder
from pipelines.strategies import STRATEGIES
from pipelines.worker import Worker
from pipelines.workloads import Vision
from tf_pipeline.strategy import build_strategy, describe_software, fence, gather_over_workers
from tf_pipeline.train import train

GATHER = """
import json
import numpy as np
from pipelines.worker import Worker
from tf_pipeline.strategy import build_strategy, gather_over_workers

worker = Worker.from_environment()
strategy = build_strategy("multi_worker_mirrored", worker)
mine = np.array([worker.rank + 0.1, -(10.0**300), 2.0**53])
gathered = [gather_over_workers(strategy, values) for values in (mine, mine[:1])]
print(json.dumps([[str(found.dtype), found.tolist()] for found in gathered]))
"""


@pytest.mark.parametrize("name", STRATEGIES["tf"])
def test_every_strategy_that_a_config_may_name_gathers_from_one_worker(name: str) -> None:
    strategy = build_strategy(name, Worker())
    fence(strategy)

    found = gather_over_workers(strategy, np.array([0.1, 2.0**53]))

    assert found.dtype == np.float64
    assert found.tolist() == [[0.1, 2.0**53]]


def test_every_strategy_that_a_config_may_name_trains_one_worker_alike(
    config: Config, workload: Vision, dataset: Dataset
) -> None:
    losses = {}
    for name in STRATEGIES["tf"]:
        recorder = Recorder()
        train(config, workload, build_strategy(name, Worker()), Worker(), recorder)
        losses[name] = recorder.losses

    first, *others = losses.values()
    assert list(losses) == ["one_device", "multi_worker_mirrored"]
    assert len(first) == config.training.steps
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)


def test_two_workers_gather_each_others_vectors_by_rank_to_the_last_bit(
    run_workers: Callable[[str, int], list[str]],
) -> None:
    printed = run_workers(GATHER, 2)

    expected = [
        ["float64", [[0.1, -(10.0**300), 2.0**53], [1.1, -(10.0**300), 2.0**53]]],
        ["float64", [[0.1], [1.1]]],
    ]
    assert [json.loads(output.splitlines()[-1]) for output in printed] == [expected] * 2


def test_the_software_is_described_by_version_and_class_of_build() -> None:
    cuda = tf.sysconfig.get_build_info().get("cuda_version", "")
    build = f"cuda{cuda.split('.')[0]}" if tf.config.list_physical_devices("GPU") else "cpu"

    assert describe_software() == {
        "framework_version": f"tensorflow {tf.__version__}",
        "software_build": build,
    }
