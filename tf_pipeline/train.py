"""Training: one custom loop over ``strategy.run``, which serves every strategy.

``Model.fit`` would not: under Keras 3 it raises with MultiWorkerMirroredStrategy.
"""

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.recorder import Recorder, StepClock
from pipelines.saver import Keeper, Unsaved
from pipelines.train_step import train_in_step
from pipelines.worker import Worker
from pipelines.workloads import Workload
from tf_pipeline.data import open_dataset
from tf_pipeline.loss import mean_loss
from tf_pipeline.model import build_model
from tf_pipeline.optimizer import build_optimizer, global_norm
from tf_pipeline.strategy import fence

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

__all__ = ["build_step", "run_fn", "train"]

_POLICIES = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
    "float64": "float64",
}

_STEPS_OUTSTANDING = 3
"""How far the coordinator of parameter servers is ahead of its workers at most."""

_Features = dict[str, tf.Tensor]
_Batches = Iterable[tuple[_Features, tf.Tensor]]


def train(
    config: Config,
    workload: Workload,
    strategy: tf.distribute.Strategy,
    worker: Worker,
    recorder: Recorder,
    keeper: Keeper,
    transformed: Path | None = None,
) -> keras.Model:
    """Train from the workload's initial weights, or the keeper's, for ``training.steps`` steps.

    Speed, phases and this worker's losses go to the recorder. The keeper may end it earlier.

    Raises:
        InputError: if the machine cannot train in the configured precision, or so compiled.
    """
    _set_precision(config)
    seed, recompute = config.training.seed, config.training.activation_checkpointing
    with recorder.phase("build_seconds"):
        if worker.role == "coordinator":
            source = Worker(replicas=worker.workers)
            batches = open_dataset(config, workload, "train", source, transformed, keeper.start)
        else:
            batches = strategy.distribute_datasets_from_function(
                lambda _: open_dataset(config, workload, "train", worker, transformed, keeper.start)
            )
        with strategy.scope():
            model = build_model(workload, seed, recompute)
            optimizer = build_optimizer(config, model)
    _refuse_uncompilable(config, strategy, model)
    step = _Step(config, workload, strategy, model, optimizer, recorder, keeper)
    clock = StepClock(
        recorder,
        steps=config.training.steps,
        warmup_steps=config.training.warmup_steps,
        global_batch_size=config.global_batch_size(worker.all_replicas),
        fence=lambda: fence(strategy),
        done=keeper.start,
    )
    if worker.role == "coordinator":
        _train_on_others(step, batches, worker.workers, clock)
        here = build_model(workload, seed, recompute)
        here.set_weights(model.get_weights())
        return here
    if config.tf.steps_per_call > 1 and not recorder.traced:
        _train_several_at_once(step, batches, clock)
    else:
        _train_one_by_one(step, batches, clock)
    return model


def build_step(
    config: Config, workload: Workload, strategy: tf.distribute.Strategy
) -> Callable[[dict[str, tf.Tensor], tf.Tensor], tf.Tensor]:
    """One step by itself, from the initial weights: takes a batch, updates, returns the loss.

    Raises:
        InputError: if the machine cannot train in the configured precision, or so compiled.
    """
    _set_precision(config)
    with strategy.scope():
        seed, recompute = config.training.seed, config.training.activation_checkpointing
        model = build_model(workload, seed, recompute)
        optimizer = build_optimizer(config, model)
    _refuse_uncompilable(config, strategy, model)
    step = _Step(config, workload, strategy, model, optimizer, Recorder(), Unsaved())
    return lambda features, target: _local_mean(strategy, step.run(features, target)[0])


def run_fn(fn_args: "FnArgs") -> None:
    """TFX Trainer's entry point: train on the Transform component's output, then export."""
    asked = fn_args.custom_config
    train_in_step(
        "tf",
        asked["config"],
        asked["workers"],
        dataset=Path(asked["dataset"]),
        # The pattern that TFX gives is FOLDER/Split-train/*.
        transformed=Path(fn_args.train_files[0]).parent.parent,
        transform_fn=Path(fn_args.transform_output),
        output=Path(fn_args.serving_model_dir),
    )


class _Step:
    """A step of training, or under parameter servers one worker's update."""

    def __init__(
        self,
        config: Config,
        workload: Workload,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        recorder: Recorder,
        keeper: Keeper,
    ) -> None:
        self.strategy = strategy
        self.model = model
        self.optimizer = optimizer
        self.recorder = recorder
        self.keeper = keeper
        self.steps_per_call = config.tf.steps_per_call
        self.left = range(keeper.start + 1, config.training.steps + 1)
        """The steps that are to be done, counted from 1."""
        self._workload = workload
        self._parts = config.training.gradient_accumulation
        self._scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        self._gradients = self._gradients_of
        if config.training.compile == "default":
            self._gradients = tf.function(self._gradients_of, jit_compile=True)

    def run(self, features: _Features, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """In every replica: its mean loss before the update, and the gradient's norm if traced."""
        return self.strategy.run(self._of_replica, args=(features, target))

    def _of_replica(self, features: _Features, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts, optimizer = self._parts, self.optimizer
        loss, gradients = self._gradients(*_part(features, target, 0, parts))
        for number in range(1, parts):
            more, further = self._gradients(*_part(features, target, number, parts))
            loss += more
            gradients = [one + other for one, other in zip(gradients, further, strict=True)]
        if self.strategy.num_replicas_in_sync > 1:
            gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        optimizer.apply(gradients, self.model.trainable_variables)
        norm = _exact_norm(gradients) if self.recorder.traced else tf.zeros((), tf.float64)
        if self._scaled:
            norm /= tf.cast(optimizer.dynamic_scale, tf.float64)
        return loss / parts, norm

    def _gradients_of(
        self, features: _Features, target: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            loss = mean_loss(self._workload, self.model(features, training=True), target)
            # Gradients are summed over replicas and parts, so each gives its share of the mean.
            share = loss / (self.strategy.num_replicas_in_sync * self._parts)
            share = self.optimizer.scale_loss(share) if self._scaled else share
        gradients = tape.gradient(share, self.model.trainable_variables)
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]


def _train_one_by_one(step: _Step, batches: _Batches, clock: StepClock) -> None:
    """A call for every step, which asks for its batch itself: its wait is measured."""
    recorder, strategy, keeper = step.recorder, step.strategy, step.keeper
    train_step = tf.function(step.run)
    losses: list[tf.Tensor] = []

    def flush() -> None:
        # In one operation: it is done between timed steps, and one per step would tell.
        parts = [part for loss in losses for part in strategy.experimental_local_results(loss)]
        if parts:
            by_step = tf.reshape(tf.stack(parts), (len(losses), -1))
            recorder.losses += tf.reduce_mean(by_step, axis=1).numpy().tolist()
        losses.clear()

    keeper.attach(step.model, step.optimizer, clock, flush)
    clock.start()
    for done, (features, target) in zip(step.left, clock.waiting(batches), strict=False):
        loss, norm = train_step(features, target)
        losses.append(loss)
        if recorder.traced:
            recorder.gradient_norms.append(float(_local_mean(strategy, norm)))
            weights = [tf.convert_to_tensor(each) for each in step.model.weights]
            recorder.weight_norms.append(float(_exact_norm(weights)))
        clock.step_done()
        if keeper.stop_after(done):
            break
    flush()


def _train_several_at_once(step: _Step, batches: _Batches, clock: StepClock) -> None:
    """A call for several steps, none of which lies beyond the end of a phase or a check."""
    recorder, strategy, keeper = step.recorder, step.strategy, step.keeper
    dtype = keras.config.floatx()

    @tf.function
    def train_steps(remaining: tf.data.Iterator, count: tf.Tensor) -> tf.Tensor:
        losses = tf.TensorArray(dtype, count)
        for number in tf.range(count):
            loss, _ = step.run(*next(remaining))
            losses = losses.write(number, _local_mean(strategy, loss))
        return losses.stack()

    losses: list[tf.Tensor] = []

    def flush() -> None:
        if losses:
            recorder.losses += tf.concat(losses, 0).numpy().tolist()
        losses.clear()

    keeper.attach(step.model, step.optimizer, clock, flush)
    clock.start()
    remaining, done = iter(batches), keeper.start
    while done < step.left.stop - 1:
        checked = keeper.steps_to_check(done)
        count = min(step.steps_per_call, clock.steps_to_boundary, checked)
        losses.append(train_steps(remaining, tf.constant(count)))
        clock.step_done(count)
        done += count
        if keeper.stop_after(done):
            break
    flush()


def _train_on_others(step: _Step, batches: tf.data.Dataset, workers: int, clock: StepClock) -> None:
    """An update by any worker for every batch, and as many to a step as there are workers."""
    recorder, keeper = step.recorder, step.keeper
    coordinator = tf.distribute.coordinator.ClusterCoordinator(step.strategy)
    update = tf.function(lambda features, target: step.run(features, target)[0])
    issued: deque[list[tf.distribute.coordinator.RemoteValue]] = deque()

    def wait_until(outstanding: int) -> None:
        while len(issued) > outstanding:
            recorder.losses.append(float(np.mean([loss.fetch() for loss in issued.popleft()])))

    keeper.attach(step.model, step.optimizer, clock, lambda: wait_until(0))
    clock.start()
    steps = zip(*[clock.waiting(batches)] * workers, strict=False)
    for done, of_workers in zip(step.left, steps, strict=False):
        issued.append([coordinator.schedule(update, args=batch) for batch in of_workers])
        clock.step_done()
        wait_until(_STEPS_OUTSTANDING)
        if keeper.stop_after(done):
            break
    wait_until(0)


def _set_precision(config: Config) -> None:
    precision = config.training.precision
    if precision == "float16" and config.tf.strategy == "parameter_server":
        raise InputError(
            "training.precision: float16 scales the loss, which the workers of parameter_server "
            "cannot agree on; use bfloat16, or another tf.strategy"
        )
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


def _exact_norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """In float64: the sum of a large tensor's squares rounds by more than the frameworks differ."""
    return global_norm([tf.cast(tensor, tf.float64) for tensor in tensors])


def _local_mean(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """The mean over this worker's replicas, which all have batches of one size."""
    return tf.reduce_mean(tf.stack(strategy.experimental_local_results(value)))
