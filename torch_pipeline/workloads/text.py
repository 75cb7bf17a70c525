"""``text`` in PyTorch: a decoder-only transformer, and the transform that cuts off its target."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.workloads.base import TARGET
from pipelines.workloads.text import EPSILON, TOKENS, Text
from torch_pipeline.activation import gelu
from torch_pipeline.workloads.block import Block

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, Tensor]


def build_network(workload: Text, recompute: bool = False) -> nn.Module:
    """A network from tokens (batch, tokens) to logits (batch, tokens, vocabulary).

    With ``recompute``, activations inside the blocks are computed again for the gradient.
    """
    return _Transformer(workload, recompute)


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Nothing is learnt from the train split: tokens are numbers of embeddings already."""
    return {}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """All tokens but the last, and as the target all but the first, each (batch, tokens)."""
    tokens = inputs[config["column"]].reshape(-1, config["sequence_length"] + 1)
    return {TOKENS: tokens[:, :-1], TARGET: tokens[:, 1:]}


class _Transformer(nn.Module):
    """Blocks and layers are named as the workload names them."""

    def __init__(self, workload: Text, recompute: bool) -> None:
        super().__init__()
        self._blocks = list(workload.blocks())
        self.token_embedding = nn.Embedding(workload.vocabulary, workload.width)
        self.position_embedding = nn.Embedding(workload.sequence_length, workload.width)
        for name in self._blocks:
            self.add_module(name, _TransformerBlock(workload, name, recompute))
        self.final_norm = nn.LayerNorm(workload.width, EPSILON)

    def forward(self, features: Tensors) -> Tensor:
        tokens = features[TOKENS]
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for name in self._blocks:
            x = self.get_submodule(name)(x)
        embedding = self.token_embedding.weight
        # Under autocast the product is in lower precision than the parameters are.
        return functional.linear(self.final_norm(x), embedding).to(embedding.dtype)


class _TransformerBlock(Block):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Text, name: str, recompute: bool) -> None:
        super().__init__(recompute)
        self._name = name
        self._heads = workload.heads
        for layer, inputs, outputs in workload.dense_layers():
            if layer.startswith(f"{name}_"):
                self.add_module(layer, nn.Linear(inputs, outputs))
        for layer in workload.norms():
            if layer.startswith(f"{name}_"):
                self.add_module(layer, nn.LayerNorm(workload.width, EPSILON))

    def compute(self, x: Tensor) -> Tensor:
        """Of the shape of ``x``: (batch, tokens, width)."""
        x = x + self._attend(x)
        return x + self._mlp(x)

    def _attend(self, x: Tensor) -> Tensor:
        y = self._layer("attention_in")(self._layer("attention_norm")(x))
        # (batch, tokens, 3 x width) to three of (batch, heads, tokens, width of a head).
        query, key, value = y.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self._layer("attention_out")(y.transpose(1, 2).flatten(2))

    def _mlp(self, x: Tensor) -> Tensor:
        y = gelu(self._layer("mlp_in")(self._layer("mlp_norm")(x)))
        return self._layer("mlp_out")(y)

    def _layer(self, name: str) -> nn.Module:
        return self.get_submodule(f"{self._name}_{name}")
