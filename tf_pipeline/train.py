"""Training: one custom loop over ``strategy.run``, which serves every strategy.

``Model.fit`` would not: under Keras 3 it raises with MultiWorkerMirroredStrategy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from pipelines.config import Config, OptimizerConfig, parse_config
from pipelines.recorder import Recorder, StepClock
from pipelines.worker import Worker
from pipelines.workloads import Vision, get_workload
from tf_pipeline.data import open_dataset
from tf_pipeline.model import build_model
from tf_pipeline.strategy import build_strategy, fence

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

__all__ = ["run_fn", "train"]


def train(
    config: Config,
    workload: Vision,
    strategy: tf.distribute.Strategy,
    worker: Worker,
    recorder: Recorder,
    transformed: Path | None = None,
) -> keras.Model:
    """Train from the workload's initial weights for ``training.steps`` steps.

    Speed, phases and this worker's losses go to the recorder.
    """
    global_batch_size = config.global_batch_size(worker.workers)
    with recorder.phase("build_seconds"):
        batches = strategy.distribute_datasets_from_function(
            lambda _: open_dataset(config, workload, "train", worker, transformed)
        )
        with strategy.scope():
            model = build_model(workload, config.training.seed)
            optimizer = _build_optimizer(config.training.optimizer)
            optimizer.build(model.trainable_variables)

    def replica_step(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = keras.losses.sparse_categorical_crossentropy(
                labels, model(features, training=True), from_logits=True
            )
            # The optimiser sums gradients over the replicas, so the sum of the losses is divided
            # by the global batch.
            loss = tf.reduce_sum(losses) / global_batch_size
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return tf.reduce_mean(losses)

    @tf.function
    def train_step(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return strategy.run(replica_step, args=(features, labels))

    clock = StepClock(
        recorder,
        steps=config.training.steps,
        warmup_steps=config.training.warmup_steps,
        global_batch_size=global_batch_size,
        fence=lambda: fence(strategy),
    )
    losses = []
    clock.start()
    for step, (features, labels) in enumerate(clock.waiting(batches), start=1):
        losses.append(train_step(features, labels))
        clock.step_done()
        if step == config.training.steps:
            break
    recorder.losses = [_local_mean(strategy, loss) for loss in losses]
    return model


def run_fn(fn_args: "FnArgs") -> None:
    """TFX Trainer's entry point: train on the Transform component's output, then export."""
    # TensorFlow Transform takes seconds to import, which a training worker need not spend.
    from tf_pipeline.export import export

    config = parse_config(fn_args.custom_config["config"], "TFX Trainer")
    workload = get_workload(config.workload)
    worker = Worker()
    strategy = build_strategy("one_device", worker)
    # The pattern that TFX gives is FOLDER/Split-train/*.
    transformed = Path(fn_args.train_files[0]).parent.parent
    model = train(config, workload, strategy, worker, Recorder(), transformed)
    export(workload, model, Path(fn_args.transform_output), Path(fn_args.serving_model_dir))


def _build_optimizer(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.AdamW(
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        epsilon=1e-8,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def _local_mean(strategy: tf.distribute.Strategy, loss: tf.Tensor) -> float:
    """The mean over this worker's replicas, which all have batches of one size."""
    return float(tf.reduce_mean(tf.stack(strategy.experimental_local_results(loss))))
