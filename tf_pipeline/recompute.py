"""Activation checkpointing (Chen et al., 2016).

A block's activations are computed again for its gradient instead of being kept.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

__all__ = ["layers_of", "recomputed"]


def recomputed(
    build: Callable[[keras.KerasTensor], keras.KerasTensor], x: keras.KerasTensor
) -> keras.KerasTensor:
    """``build(x)``, its inner activations recomputed in training."""
    inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
    output: keras.KerasTensor = _Recomputed(keras.Model(inputs, build(inputs)))(x)
    return output


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, those inside recomputed blocks too."""
    for layer in model.layers:
        yield from layers_of(layer.block) if isinstance(layer, _Recomputed) else [layer]


class _Recomputed(keras.layers.Layer):
    """A block of layers of which training keeps nothing but its input and its output.

    Outside training it is the block itself.
    """

    def __init__(self, block: keras.Model, **kwargs: Any) -> None:
        # What comes in and goes out keeps its type; the layers inside convert for themselves.
        super().__init__(dtype=keras.config.floatx(), autocast=False, **kwargs)
        self.block = block

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.block.compute_output_shape(input_shape)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return self.block(inputs)
        variables = self.block.variables

        @tf.recompute_grad
        def run(x: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
            # As a function of tensors alone: tapes do not find a strategy's variables.
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return self.block(x, training=True)

        return run(inputs, *[tf.convert_to_tensor(variable.value) for variable in variables])
