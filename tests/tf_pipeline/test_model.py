from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.workloads import Text, Vision, Weights, Workload
from pipelines.workloads.text import TOKENS
from pipelines.workloads.vision import IMAGE
from pipelines.workloads.vision_presets import PRESETS
from tf_pipeline.model import build_model, weights_of

TINY = Vision("tiny", (8, 8, 1), 10, PRESETS["tiny"])
TOKENS_OF_SIX = Text("tiny", layers=2, width=24, heads=3, vocabulary=11, sequence_length=6)
WITH_BLOCKS = pytest.mark.parametrize("workload", [TINY, TOKENS_OF_SIX], ids=["vision", "text"])


@dataclass(frozen=True)
class WithSpareWeights(Vision):
    def initial_weights(self, seed: int) -> Weights:
        return {**super().initial_weights(seed), "spare/bias": np.zeros(1, np.float32)}


def test_every_weight_comes_back_by_name_in_the_workloads_layout() -> None:
    initial = TINY.initial_weights(3)

    found = weights_of(build_model(TINY, 3))

    assert set(found) == set(initial)
    for name, value in initial.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_weight_that_the_network_has_no_place_for_is_an_error() -> None:
    workload = WithSpareWeights("tiny", (8, 8, 1), 10, PRESETS["tiny"])

    with pytest.raises(ValueError, match="the network has no spare/bias"):
        build_model(workload, 0)


@WITH_BLOCKS
def test_activations_computed_again_give_the_same_gradients(workload: Workload) -> None:
    kept, recomputed = build_model(workload, 3), build_model(workload, 3, recompute=True)

    assert list(weights_of(recomputed)) == list(weights_of(kept))
    found = gradients(recomputed, workload)
    for name, gradient in gradients(kept, workload).items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-5, atol=1e-7, err_msg=name)


@WITH_BLOCKS
def test_what_lies_inside_blocks_is_computed_twice_if_recomputed(workload: Workload) -> None:
    kept, recomputed = build_model(workload, 3), build_model(workload, 3, recompute=True)

    assert products(recomputed, workload) == products(kept, workload) + products_in_blocks(workload)


def gradients(model: keras.Model, workload: Workload) -> dict[str, np.ndarray]:
    """Of the sum of squared logits, traced as in training, by the names of the weights."""
    found = tf.function(lambda: gradients_of(model, workload))()
    return {
        name: tf.convert_to_tensor(gradient).numpy()
        for name, gradient in zip(weights_of(model), found, strict=True)
    }


def gradients_of(model: keras.Model, workload: Workload) -> list[tf.Tensor]:
    draw = np.random.default_rng(0)
    if isinstance(workload, Vision):
        features = {IMAGE: draw.standard_normal((3, *workload.image_shape)).astype(np.float32)}
    else:
        features = {TOKENS: draw.integers(0, workload.vocabulary, (3, workload.sequence_length))}
    with tf.GradientTape() as tape:
        inputs = {name: tf.constant(values) for name, values in features.items()}
        value = tf.reduce_sum(model(inputs, training=True) ** 2)
    return tape.gradient(value, [variable.value for variable in model.weights])


def products(model: keras.Model, workload: Workload) -> int:
    """Convolutions and matrix products in the graph of a forward and backward pass."""
    graph = tf.function(lambda: gradients_of(model, workload)).get_concrete_function().graph
    return sum(each.type == "Conv2D" or "MatMul" in each.type for each in graph.get_operations())


def products_in_blocks(workload: Workload) -> int:
    """Of one forward pass."""
    if isinstance(workload, Vision):
        return sum(len(each.convolutions) + each.projects for each in workload.blocks())
    return 6 * workload.layers  # into attention, two inside and out of it, and two of the MLP
