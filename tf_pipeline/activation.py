"""Activations that must agree to the last digit."""

import math

import keras
import tensorflow as tf

__all__ = ["gelu"]


def gelu(x: tf.Tensor) -> tf.Tensor:
    """The exact GELU (Hendrycks & Gimpel, 2016), not its tanh approximation, in any shape.

    TensorFlow's own rounds the square root of two to float32, in float64 too.
    """
    return 0.5 * x * (1 + keras.ops.erf(x * math.sqrt(0.5)))
