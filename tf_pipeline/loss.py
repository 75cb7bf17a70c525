"""The workloads' loss functions in Keras."""

import keras
import tensorflow as tf

from pipelines.workloads import Workload

__all__ = ["mean_loss", "prediction_losses"]


def mean_loss(workload: Workload, logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The mean cross-entropy over all predictions, in nats."""
    return tf.reduce_mean(prediction_losses(workload, logits, target))


def prediction_losses(workload: Workload, logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The cross-entropy of every prediction, in nats, in the target's shape.

    ``softmax``: logits (..., classes) and classes (...). ``sigmoid``: logits and 0 or 1 (batch,).
    """
    if logits.dtype.size < 4:  # a mean of many needs more digits than mixed precision has
        logits = tf.cast(logits, tf.float32)
    if workload.loss == "softmax":
        return keras.losses.sparse_categorical_crossentropy(target, logits, from_logits=True)
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(target, logits.dtype), logits)
