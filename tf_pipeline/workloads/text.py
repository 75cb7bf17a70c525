"""``text`` in Keras: a decoder-only transformer, and the transform that cuts off its target."""

from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from pipelines.workloads.base import TARGET
from pipelines.workloads.text import EPSILON, TOKENS, Text
from tf_pipeline.activation import gelu
from tf_pipeline.recompute import recomputed

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, tf.Tensor]


def build_network(workload: Text, recompute: bool = False) -> keras.Model:
    """A network from tokens (batch, tokens) to logits (batch, tokens, vocabulary).

    With ``recompute`` the activations inside its blocks are computed again for the gradient.
    """
    return _Network(workload, recompute).build()


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Nothing is learnt from the train split: tokens are numbers of embeddings already."""
    return {}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """All tokens but the last, and as the target all but the first, each (batch, tokens)."""
    tokens = tf.reshape(inputs[config["column"]], [-1, config["sequence_length"] + 1])
    return {TOKENS: tokens[:, :-1], TARGET: tokens[:, 1:]}


class _Network:
    """The layers lie flat, named as the workload names them.

    Under mixed precision dense layers and attention work in the lower one; embeddings, LayerNorms
    and the sum that runs through the blocks keep the parameters', as under PyTorch's autocast.
    """

    def __init__(self, workload: Text, recompute: bool) -> None:
        self._workload = workload
        self._recompute = recompute
        policy = keras.config.dtype_policy()
        self._low, self._full = policy.compute_dtype, policy.variable_dtype

    def build(self) -> keras.Model:
        workload = self._workload
        tokens = keras.Input((workload.sequence_length,), dtype="int64", name=TOKENS)
        token_embedding = layers.ReversibleEmbedding(
            workload.vocabulary,
            workload.width,
            reverse_dtype=self._low,
            dtype=self._full,
            name="token_embedding",
        )
        position_embedding = _PositionEmbedding(dtype=self._full, name="position_embedding")
        x = position_embedding(token_embedding(tokens))
        for block in workload.blocks():
            build = partial(self._block, name=block)
            x = recomputed(build, x) if self._recompute else build(x)
        logits = token_embedding(self._norm(x, "final_norm"), reverse=True)
        return keras.Model({TOKENS: tokens}, ops.cast(logits, self._full))

    def _block(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        x = self._add(x, self._attend(x, name))
        return self._add(x, self._mlp(x, name))

    def _attend(self, x: keras.KerasTensor, block: str) -> keras.KerasTensor:
        width = self._workload.width
        y = self._norm(x, f"{block}_attention_norm")
        y = layers.Dense(3 * width, name=f"{block}_attention_in")(y)
        y = _CausalAttention(self._workload.heads, name=f"{block}_attention")(y)
        return layers.Dense(width, name=f"{block}_attention_out")(y)

    def _mlp(self, x: keras.KerasTensor, block: str) -> keras.KerasTensor:
        width = self._workload.width
        y = self._norm(x, f"{block}_mlp_norm")
        y = layers.Dense(4 * width, activation=gelu, name=f"{block}_mlp_in")(y)
        return layers.Dense(width, name=f"{block}_mlp_out")(y)

    def _norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.LayerNormalization(epsilon=EPSILON, dtype=self._full, name=name)(x)

    def _add(self, x: keras.KerasTensor, y: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Add(dtype=self._full)([x, y])


class _PositionEmbedding(layers.Layer):
    """Adds to each token's vector one learnt for its place."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.embeddings = self.add_weight(name="embeddings", shape=input_shape[1:])

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs + self.embeddings


class _CausalAttention(layers.Layer):
    """Attention of each token to itself and those before it.

    From queries, keys and values side by side, (batch, tokens, 3 x width), to (batch, tokens,
    width). Written out because ``keras.ops.dot_product_attention`` takes half as long again on
    TensorFlow's CPUs.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._heads = heads

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*input_shape[:-1], input_shape[-1] // 3)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        tokens, width = int(inputs.shape[1]), int(inputs.shape[2]) // 3
        head_width = width // self._heads
        split = ops.reshape(inputs, (-1, tokens, 3, self._heads, head_width))
        query, key, value = ops.unstack(ops.transpose(split, (2, 0, 3, 1, 4)), 3)
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        scores = ops.cast(scores, self.variable_dtype) * head_width**-0.5
        scores = ops.where(ops.tril(ops.ones((tokens, tokens), "bool")), scores, float("-inf"))
        shares = ops.cast(ops.softmax(scores), self.compute_dtype)
        mixed = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))
        return ops.reshape(mixed, (-1, tokens, width))
