"""The workload's network in Keras, from the workload's own initial weights."""

from importlib import import_module

import keras
import numpy as np

from pipelines.workloads import Weights, Workload
from tf_pipeline.recompute import layers_of

__all__ = ["build_model", "weights_of"]

_KINDS = {
    "kernel": "kernel",
    "bias": "bias",
    "embeddings": "embedding",
    "gamma": "scale",
    "beta": "bias",
    "moving_mean": "mean",
    "moving_variance": "variance",
}
"""Keras's name for a variable of a layer -> the workloads'."""


def build_model(workload: Workload, seed: int, recompute: bool = False) -> keras.Model:
    """A network from the workload's features, by name, to logits; every one with batches first.

    With ``recompute``, training computes the activations inside its blocks again for the gradient.
    """
    model: keras.Model = _network(workload, recompute)
    weights = workload.initial_weights(seed)
    for name, variable in _variables(model).items():
        variable.assign(weights.pop(name))
    if weights:
        raise ValueError(f"the network has no {', '.join(weights)}")
    return model


def weights_of(model: keras.Model) -> Weights:
    """Every parameter and running statistic, named and laid out as the workload states."""
    return {name: np.asarray(variable) for name, variable in _variables(model).items()}


def _network(workload: Workload, recompute: bool) -> keras.Model:
    built: keras.Model = import_module(f"tf_pipeline.workloads.{workload.name}").build_network(
        workload, recompute
    )
    return built


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    return {
        f"{layer.name}/{_KINDS[variable.name]}": variable
        for layer in layers_of(model)
        for variable in layer.weights
    }
