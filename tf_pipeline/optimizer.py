"""Optimisers in Keras, step by step what PyTorch's are.

Keras's own differ in rounding and in more: Adam adds epsilon before the bias correction, works its
corrections out in float32, and momentum keeps the learning rate inside its average. They also
clip each replica's gradient instead of the workers' common one.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from pipelines.config import Config
from pipelines.schedule import learning_rates

__all__ = ["build_optimizer", "global_norm"]

_CLIP_EPSILON = 1e-6
"""What ``torch.nn.utils.clip_grad_norm_`` adds to the norm."""


def build_optimizer(config: Config, model: keras.Model) -> keras.optimizers.Optimizer:
    """The configured optimiser over a model's trainable parameters.

    It takes gradients that are summed over the replicas already, clips them by their global norm,
    and follows the learning rates of ``pipelines.schedule``. Under parameter servers a step is an
    update by each worker, all at the step's rate.
    """
    asked = config.training.optimizer
    rates = _Table(np.repeat(learning_rates(config.training), _updates_per_step()))
    optimizer: keras.optimizers.Optimizer
    if asked.name in ("sgd", "momentum"):
        momentum = asked.momentum if asked.name == "momentum" else 0.0
        optimizer = _Momentum(rates, momentum=momentum, name="momentum")
    else:
        optimizer = _AdamW(
            rates,
            beta_1=asked.beta1,
            beta_2=asked.beta2,
            epsilon=asked.epsilon,
            name="adamw",
        )
        optimizer.decoupled_decay = asked.weight_decay
    optimizer.clip_norm = asked.clip_norm
    optimizer.build(model.trainable_variables)
    if config.training.precision != "float16":
        return optimizer
    scaled = keras.optimizers.LossScaleOptimizer(
        optimizer, initial_scale=2.0**16, dynamic_growth_steps=2000
    )
    scaled.build(model.trainable_variables)
    return scaled


def global_norm(values: list[tf.Tensor]) -> tf.Tensor:
    """L2 norm over all elements of all tensors, the norm of the tensors' norms."""
    return tf.norm(tf.stack([tf.norm(value) for value in values]))


def _updates_per_step() -> int:
    if not isinstance(tf.distribute.get_strategy(), tf.distribute.ParameterServerStrategy):
        return 1
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    return int(cluster.num_tasks("worker"))


class _Table(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rates: np.ndarray) -> None:
        self._rates = tf.constant(rates, tf.float64)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._rates, tf.minimum(tf.cast(step, tf.int64), len(self._rates) - 1))

    def get_config(self) -> dict[str, Any]:
        return {"rates": self._rates.numpy()}


class _OverAllReplicas(keras.optimizers.Optimizer):
    """Takes gradients as they come: they are the workers' sum already."""

    clip_norm: float | None = None

    def apply(
        self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None
    ) -> None:
        self._backend_apply_gradients(grads, trainable_variables)
        # As one operation, unlike Keras's: under parameter servers other workers count as well.
        self.assign_add(self.iterations, 1)

    def _all_reduce_sum_gradients(self, grads_and_vars: list[Any]) -> list[Any]:
        if self.clip_norm is None:
            return grads_and_vars
        gradients = [gradient for gradient, _ in grads_and_vars]
        share = self.clip_norm / (global_norm(gradients) + _CLIP_EPSILON)
        share = tf.minimum(share, tf.ones_like(share))
        return [(gradient * share, variable) for gradient, variable in grads_and_vars]


class _Momentum(_OverAllReplicas, keras.optimizers.SGD):
    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate = tf.cast(learning_rate, variable.dtype)
        if self.momentum:
            average = self.momentums[self._get_variable_index(variable)]
            self.assign(average, self.momentum * average + gradient)
            gradient = average
        self.assign_sub(variable, rate * gradient)


class _AdamW(_OverAllReplicas, keras.optimizers.Adam):
    decoupled_decay = 0.0

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        number = self._get_variable_index(variable)
        mean, square = self._momentums[number], self._velocities[number]
        rate, step = tf.cast(learning_rate, tf.float64), tf.cast(self.iterations + 1, tf.float64)
        # In float64, as PyTorch's are: 1 - 0.999 has five correct digits in float32.
        rate_of_mean = rate / (1 - tf.constant(self.beta_1, tf.float64) ** step)
        root_of_correction = tf.sqrt(1 - tf.constant(self.beta_2, tf.float64) ** step)
        if self.decoupled_decay and len(variable.shape) > 1:
            self.assign(
                variable, variable * tf.cast(1 - rate * self.decoupled_decay, variable.dtype)
            )
        self.assign_add(mean, (gradient - mean) * (1 - self.beta_1))
        self.assign(square, square * self.beta_2 + gradient * gradient * (1 - self.beta_2))
        root = ops.sqrt(square) / tf.cast(root_of_correction, variable.dtype)
        self.assign_sub(
            variable, tf.cast(rate_of_mean, variable.dtype) * (mean / (root + self.epsilon))
        )
