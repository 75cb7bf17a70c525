"""The workload's network in Keras, from the workload's own initial weights."""

import keras
from keras import layers

from pipelines.workloads import Vision
from pipelines.workloads.vision import Block

__all__ = ["build_model"]


def build_model(workload: Vision, seed: int) -> keras.Model:
    """A network from images (batch, height, width, channels) to logits (batch, classes)."""
    images = keras.Input(workload.image_shape, name=workload.feature)
    x = _convolution(images, "stem", workload.widths[0])
    for block in workload.blocks():
        x = _residual(x, block)
    x = layers.GlobalAveragePooling2D()(_gelu(x))
    model = keras.Model(images, layers.Dense(workload.classes, name="head")(x))
    weights = workload.initial_weights(seed)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([weights[f"{layer.name}/kernel"], weights[f"{layer.name}/bias"]])
    return model


def _residual(x: keras.KerasTensor, block: Block) -> keras.KerasTensor:
    shortcut = x
    if block.projects:
        shortcut = layers.Conv2D(
            block.width, 1, strides=block.stride, name=f"{block.name}_shortcut"
        )(x)
    y = _convolution(_gelu(x), f"{block.name}_conv1", block.width, block.stride)
    y = _convolution(_gelu(y), f"{block.name}_conv2", block.width)
    return layers.add([shortcut, y])


def _convolution(x: keras.KerasTensor, name: str, width: int, stride: int = 1) -> keras.KerasTensor:
    """A 3x3 convolution, one pixel padded on each side at any stride."""
    if stride == 1:
        return layers.Conv2D(width, 3, padding="same", name=name)(x)
    return layers.Conv2D(width, 3, strides=stride, name=name)(layers.ZeroPadding2D(1)(x))


def _gelu(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("gelu")(x)
