"""What a step consists of, each by itself: its computation, and an all-reduce of its size."""

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from pipelines.config import Config
from pipelines.worker import Worker
from pipelines.workloads import Workload
from tf_pipeline.data import open_dataset
from tf_pipeline.strategy import fence
from tf_pipeline.train import build_step

__all__ = ["build_all_reduce", "build_compute"]


def build_compute(
    config: Config,
    workload: Workload,
    strategy: tf.distribute.Strategy,
    transformed: Path | None = None,
) -> Callable[[int], None]:
    """What takes so many training steps, all on one batch that lies on the device, and waits.

    Without collectives if ``strategy`` is of one device. All steps are one call, so that none pays
    for Python.
    """
    step = build_step(config, workload, strategy)
    batches = strategy.distribute_datasets_from_function(
        lambda _: open_dataset(config, workload, "train", Worker(), transformed)
    )
    features, target = next(iter(batches))

    @tf.function
    def take(count: tf.Tensor) -> None:
        for _ in tf.range(count):
            step(features, target)

    def compute(steps: int) -> None:
        take(tf.constant(steps))
        fence(strategy)

    return compute


def build_all_reduce(strategy: tf.distribute.Strategy, elements: int) -> Callable[[int], None]:
    """What sums a float32 vector over all workers so many times in a row, and waits.

    All workers must call it together. All sums are one call, as a step's are part of its call.
    """
    vector = tf.zeros(elements)

    def of_replica(values: tf.Tensor) -> tf.Tensor:
        # The sum goes where its input lies, and an argument lies nowhere in particular.
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(values))

    @tf.function
    def sums(values: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(count):
            # Each awaits the one before, whose result it takes.
            found = strategy.run(of_replica, args=(values,))
            values = strategy.experimental_local_results(found)[0]
        return values

    def all_reduce(repeats: int) -> None:
        sums(vector, tf.constant(repeats))
        fence(strategy)

    return all_reduce
