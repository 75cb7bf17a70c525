import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.ingest.reader import SharedBatches
from pipelines.recorder import Recorder
from pipelines.saver import Unsaved
from pipelines.worker import Worker
from pipelines.workloads import Vision
from tf_pipeline import anatomy
from tf_pipeline.anatomy import build_compute
from tf_pipeline.strategy import build_strategy
from tf_pipeline.train import build_step, train

ALONE = ("tf.strategy=one_device", "study.workers=[1]")
CONSTANT = "training.schedule={name: constant, warmup_steps: 0}"

ALL_REDUCE = """
import json
import time
from pathlib import Path
from pipelines.config import load_config
from pipelines.worker import Worker
from tf_pipeline.anatomy import build_all_reduce
from tf_pipeline.strategy import build_strategy

worker = Worker.from_environment()
strategy = build_strategy(load_config(Path("config.yaml")), worker)
all_reduce = build_all_reduce(strategy, 256)
all_reduce(1)
if worker.rank == 1:
    time.sleep(1.0)
started = time.perf_counter()
all_reduce(3)
print(json.dumps(time.perf_counter() - started))
"""


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("training.gradient_accumulation=4", "training.optimizer.clip_norm=0.1"),
        ("training.precision=bfloat16",),
        ("training.precision=float64",),
    ],
    ids=["plain", "accumulated and clipped", "mixed", "double"],
)
def test_a_step_by_itself_is_the_training_loops(
    load_shrunk: Callable[..., Config],
    workload: Vision,
    dataset: Dataset,
    overrides: tuple[str, ...],
) -> None:
    config, recorder = load_shrunk(*ALONE, CONSTANT, *overrides), Recorder()
    strategy = build_strategy(config, Worker())
    train(config, workload, strategy, Worker(), recorder, Unsaved())

    step = build_step(config, workload, build_strategy(config, Worker()))
    batches = SharedBatches(config, workload, "train", Worker())
    losses = [
        float(step(*tf.nest.map_structure(tf.constant, (features, target))))
        for _, (features, target) in zip(recorder.losses, batches, strict=False)
    ]

    assert len(losses) == config.training.steps
    np.testing.assert_allclose(losses, recorder.losses, rtol=1e-5)
    assert losses[-1] < losses[0]


def test_as_many_steps_are_computed_as_asked_all_on_the_first_batch(
    load_shrunk: Callable[..., Config],
    workload: Vision,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_shrunk(*ALONE)
    seen: Any = tf.Variable(0, dtype=tf.int64)

    def build_counted(*arguments: Any) -> Callable[..., Any]:
        step = build_step(*arguments)

        def counted(features: Any, target: Any) -> Any:
            seen.assign_add(tf.reduce_sum(tf.cast(target, tf.int64)))
            return step(features, target)

        return counted

    monkeypatch.setattr(anatomy, "build_step", build_counted)
    compute = build_compute(config, workload, build_strategy(config, Worker()))
    compute(3)
    compute(4)

    _, first = next(iter(SharedBatches(config, workload, "train", Worker())))
    assert seen.numpy() == 7 * int(first.sum())


def test_an_all_reduce_waits_for_all_workers(
    run_workers: Callable[[str, int], list[str]], config: Config, tmp_path: Path
) -> None:
    config.dump(tmp_path / "config.yaml")

    printed = run_workers(ALL_REDUCE, 2)

    seconds = [json.loads(output.splitlines()[-1]) for output in printed]
    assert seconds[0] > 0.5
    assert seconds[1] > 0
