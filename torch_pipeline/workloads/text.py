"""``text`` in PyTorch: a decoder-only transformer, and the transform that cuts off its target."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.workloads.base import TARGET
from pipelines.workloads.text import EPSILON, TOKENS, Text
from torch_pipeline.activation import gelu

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, Tensor]


def build_network(workload: Text) -> nn.Module:
    """A network from tokens (batch, tokens) to logits (batch, tokens, vocabulary)."""
    return _Transformer(workload)


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Nothing is learnt from the train split: tokens are numbers of embeddings already."""
    return {}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """All tokens but the last, and as the target all but the first, each (batch, tokens)."""
    tokens = inputs[config["column"]].reshape(-1, config["sequence_length"] + 1)
    return {TOKENS: tokens[:, :-1], TARGET: tokens[:, 1:]}


class _Transformer(nn.Module):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Text) -> None:
        super().__init__()
        self._blocks = list(workload.blocks())
        self._heads = workload.heads
        self.token_embedding = nn.Embedding(workload.vocabulary, workload.width)
        self.position_embedding = nn.Embedding(workload.sequence_length, workload.width)
        for name, inputs, outputs in workload.dense_layers():
            self.add_module(name, nn.Linear(inputs, outputs))
        for name in workload.norms():
            self.add_module(name, nn.LayerNorm(workload.width, EPSILON))

    def forward(self, features: Tensors) -> Tensor:
        tokens = features[TOKENS]
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)
        for block in self._blocks:
            x = x + self._attend(x, block)
            x = x + self._mlp(x, block)
        embedding = self.token_embedding.weight
        # Under autocast the product is in lower precision than the parameters are.
        return functional.linear(self.get_submodule("final_norm")(x), embedding).to(embedding.dtype)

    def _attend(self, x: Tensor, block: str) -> Tensor:
        y = self.get_submodule(f"{block}_attention_norm")(x)
        y = self.get_submodule(f"{block}_attention_in")(y)
        # (batch, tokens, 3 x width) to three of (batch, heads, tokens, width of a head).
        query, key, value = y.unflatten(-1, (3, self._heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.get_submodule(f"{block}_attention_out")(y.transpose(1, 2).flatten(2))

    def _mlp(self, x: Tensor, block: str) -> Tensor:
        y = self.get_submodule(f"{block}_mlp_norm")(x)
        y = gelu(self.get_submodule(f"{block}_mlp_in")(y))
        return self.get_submodule(f"{block}_mlp_out")(y)
