"""Training: one custom loop over ``strategy.run``, which serves every strategy.

``Model.fit`` would not: under Keras 3 it raises with MultiWorkerMirroredStrategy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from pipelines.config import Config, parse_config
from pipelines.errors import InputError
from pipelines.ingest.dataset import Dataset
from pipelines.recorder import Recorder, StepClock
from pipelines.worker import Worker
from pipelines.workloads import Workload, get_workload
from tf_pipeline.data import open_dataset
from tf_pipeline.loss import mean_loss
from tf_pipeline.model import build_model
from tf_pipeline.optimizer import build_optimizer, global_norm
from tf_pipeline.strategy import build_strategy, fence

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

__all__ = ["run_fn", "train"]

_POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
    "float64": "float64",
}

_Features = dict[str, tf.Tensor]


def train(
    config: Config,
    workload: Workload,
    strategy: tf.distribute.Strategy,
    worker: Worker,
    recorder: Recorder,
    transformed: Path | None = None,
) -> keras.Model:
    """Train from the workload's initial weights for ``training.steps`` steps.

    Speed, phases and this worker's losses go to the recorder.

    Raises:
        InputError: if the machine cannot train in the configured precision, or so compiled.
    """
    _set_precision(config)
    with recorder.phase("build_seconds"):
        batches = strategy.distribute_datasets_from_function(
            lambda _: open_dataset(config, workload, "train", worker, transformed)
        )
        with strategy.scope():
            model = build_model(workload, config.training.seed)
            optimizer = build_optimizer(config, model)
    _refuse_uncompilable(config, strategy, model)
    replicas, parts = strategy.num_replicas_in_sync, config.training.gradient_accumulation
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)

    def gradients_of(features: _Features, target: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = mean_loss(workload, model(features, training=True), target)
            # Gradients are summed over replicas and parts, so each gives its share of the mean.
            share = loss / (replicas * parts)
            share = optimizer.scale_loss(share) if scaled else share
        gradients = tape.gradient(share, model.trainable_variables)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    if config.training.compile == "default":
        gradients_of = tf.function(gradients_of, jit_compile=True)

    def replica_step(features: _Features, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss, gradients = gradients_of(*_part(features, target, 0, parts))
        for number in range(1, parts):
            more, further = gradients_of(*_part(features, target, number, parts))
            loss += more
            gradients = [one + other for one, other in zip(gradients, further, strict=True)]
        gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        optimizer.apply(gradients, model.trainable_variables)
        norm = global_norm(gradients) if recorder.traced else tf.zeros(())
        return loss / parts, norm / optimizer.dynamic_scale if scaled else norm

    @tf.function
    def train_step(features: _Features, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return strategy.run(replica_step, args=(features, target))

    clock = StepClock(
        recorder,
        steps=config.training.steps,
        warmup_steps=config.training.warmup_steps,
        global_batch_size=config.global_batch_size(worker.workers),
        fence=lambda: fence(strategy),
    )
    losses = []
    clock.start()
    for step, (features, target) in enumerate(clock.waiting(batches), start=1):
        loss, norm = train_step(features, target)
        losses.append(loss)
        if recorder.traced:
            recorder.gradient_norms.append(_local_mean(strategy, norm))
            recorder.weight_norms.append(_weight_norm(model))
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
    dataset = Dataset.open(Path(fn_args.custom_config["dataset"]))
    workload = get_workload(config, dataset.manifest)
    worker = Worker()
    strategy = build_strategy("one_device", worker)
    # The pattern that TFX gives is FOLDER/Split-train/*.
    transformed = Path(fn_args.train_files[0]).parent.parent
    model = train(config, workload, strategy, worker, Recorder(), transformed)
    serving = Path(fn_args.serving_model_dir)
    export(workload, model, Path(fn_args.transform_output), dataset, serving)


def _set_precision(config: Config) -> None:
    precision = config.training.precision
    if precision == "float16" and not tf.config.list_physical_devices("GPU"):
        raise InputError("training.precision: float16 needs a GPU; bfloat16 runs on any machine")
    # On by default here, and for matrices off in PyTorch: it rounds factors to ten bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    keras.config.set_dtype_policy(_POLICIES[precision])


def _refuse_uncompilable(
    config: Config, strategy: tf.distribute.Strategy, model: keras.Model
) -> None:
    synchronised = any(getattr(layer, "synchronized", False) for layer in model.layers)
    many, on_cpu = strategy.num_replicas_in_sync > 1, not tf.config.list_physical_devices("GPU")
    if config.training.compile == "default" and synchronised and many and on_cpu:
        raise InputError(
            "training.compile: XLA has no collectives on CPUs, which batch normalisation needs "
            "here; use none, one worker, or another workload.vision.normalization"
        )


def _part(
    features: _Features, target: tf.Tensor, number: int, parts: int
) -> tuple[_Features, tf.Tensor]:
    size = target.shape[0] // parts
    rows = slice(number * size, (number + 1) * size)
    return {name: values[rows] for name, values in features.items()}, target[rows]


def _weight_norm(model: keras.Model) -> float:
    return float(global_norm([tf.convert_to_tensor(each) for each in model.weights]))


def _local_mean(strategy: tf.distribute.Strategy, value: tf.Tensor) -> float:
    """The mean over this worker's replicas, which all have batches of one size."""
    return float(tf.reduce_mean(tf.stack(strategy.experimental_local_results(value))))
