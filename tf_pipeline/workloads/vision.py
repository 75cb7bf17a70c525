"""``vision`` in Keras and TensorFlow Transform."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from keras import layers

from pipelines.workloads.base import TARGET
from pipelines.workloads.vision import EPSILON, IMAGE, MOMENTUM, Block, Convolution, Vision
from tf_pipeline.activation import gelu
from tf_pipeline.recompute import recomputed

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, tf.Tensor]


def build_network(workload: Vision, recompute: bool = False) -> keras.Model:
    """From images (batch, height, width, channels) to logits (batch, classes).

    With ``recompute`` the activations inside residual blocks are computed again for the gradient.
    """
    images = keras.Input(workload.image_shape, name=IMAGE)
    x = _convolve(images, workload.stem, workload)
    if workload.shrinks:
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        padded = keras.ops.pad(x, around, constant_values=float("-inf"))
        x = layers.MaxPooling2D(3, strides=2)(padded)
    for block in workload.blocks():
        build = partial(_residual, block=block, workload=workload)
        x = recomputed(build, x) if recompute else build(x)
    x = layers.GlobalAveragePooling2D()(_activate(x, "norm", workload))
    return keras.Model({IMAGE: images}, layers.Dense(workload.classes, name="head")(x))


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Mean and standard deviation of all pixels, as float32 scalars."""
    pixels = tf.cast(inputs[config["feature"]], tf.float64)
    fitted = {"mean": tft.mean(pixels), "std": tf.sqrt(tft.var(pixels))}
    return {name: tf.cast(value, tf.float32) for name, value in fitted.items()}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """Standardised images (batch, height, width, channels), and classes (batch,) if any."""
    pixels = tf.cast(inputs[config["feature"]], tf.float32)
    images = (tf.reshape(pixels, [-1, *config["shape"]]) - fitted["mean"]) / fitted["std"]
    if config["label"] not in inputs:
        return {IMAGE: images}
    return {IMAGE: images, TARGET: tf.reshape(inputs[config["label"]], [-1])}


def _residual(x: keras.KerasTensor, block: Block, workload: Vision) -> keras.KerasTensor:
    shortcut = branch = x
    for place, (norm, conv) in enumerate(zip(block.norms, block.convolutions, strict=True)):
        branch = _activate(branch, norm, workload)
        if place == 0 and block.projects:
            shortcut = _convolve(branch if workload.normalizes else x, block.shortcut, workload)
        branch = _convolve(branch, conv, workload)
    return layers.add([shortcut, branch])


def _convolve(x: keras.KerasTensor, conv: Convolution, workload: Vision) -> keras.KerasTensor:
    alike = conv.stride == 1  # "same" pads both sides alike at stride 1 only
    if not alike and conv.padding:
        x = layers.ZeroPadding2D(conv.padding)(x)
    return layers.Conv2D(
        conv.width,
        conv.size,
        strides=conv.stride,
        padding="same" if alike else "valid",
        use_bias=not workload.normalizes,
        name=conv.name,
    )(x)


def _activate(x: keras.KerasTensor, norm: str, workload: Vision) -> keras.KerasTensor:
    if workload.size.normalization == "batch":
        x = layers.BatchNormalization(
            momentum=MOMENTUM, epsilon=EPSILON, synchronized=True, name=norm
        )(x)
    elif workload.size.normalization == "group":
        groups = workload.groups(x.shape[-1])
        x = layers.GroupNormalization(groups, epsilon=EPSILON, name=norm)(x)
    smooth = workload.size.activation == "gelu"
    return layers.Activation(gelu if smooth else workload.size.activation)(x)
