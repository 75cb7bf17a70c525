"""``text``: a decoder-only transformer of GPT-2's shape (Radford et al., 2019).

It predicts each token of a text from those before it. The network, for ``layers`` blocks of
``width`` elements and ``heads`` heads, over ``sequence_length`` tokens:

    x = token_embedding[tokens] + position_embedding
    for each block:  x += attention_out(attention(attention_in(attention_norm(x))))
                     x += mlp_out(gelu(mlp_in(mlp_norm(x))))
    logits = final_norm(x) @ token_embedding.T

``attention_in`` gives queries, keys and values side by side, each split into the heads in order;
attention is causal and scaled by the root of a head's width; the MLP is four times as wide; GELU
is exact (erf); every dense layer has a bias and every LayerNorm an epsilon of 1e-5. There is no
dropout: two implementations could not draw alike.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from pipelines.errors import InputError
from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import WorkloadConfig
from pipelines.workloads.base import Batch, TensorSpec, Weights, Workload, seeded_normal

__all__ = ["EPSILON", "PRESETS", "TOKENS", "Size", "Text"]

TOKENS = "tokens"
"""The dataset's column, and the network's only feature."""

EPSILON = 1e-5
"""Added to the variance in every LayerNorm."""

_DEVIATION = 0.02


@dataclass(frozen=True)
class Size:
    """A preset's size."""

    layers: int
    width: int
    heads: int


PRESETS: Mapping[str, Size] = {
    "tiny": Size(layers=2, width=128, heads=4),
    "small": Size(layers=6, width=384, heads=6),
    "gpt2": Size(layers=12, width=768, heads=12),
    "gpt2-medium": Size(layers=24, width=1024, heads=16),
    "gpt2-large": Size(layers=36, width=1280, heads=20),
    "gpt2-xl": Size(layers=48, width=1600, heads=25),
}
"""The last four are the published sizes: with a vocabulary of 50,257 and 1,024 tokens they have
124, 355, 774 and 1,558 million parameters."""


@dataclass(frozen=True)
class Text(Workload):
    """The network at one size, for texts of one length over one vocabulary."""

    name: ClassVar = "text"
    loss: ClassVar = "softmax"
    metrics: ClassVar = ("eval_loss", "eval_perplexity")
    default_thresholds: ClassVar = {"eval_perplexity": 8.0}
    predicts_sequences: ClassVar = True

    preset: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    """Different tokens; they are numbered from 0."""
    sequence_length: int
    """Tokens of one example's feature, and of its target."""

    @classmethod
    def build(cls, config: WorkloadConfig, manifest: Manifest) -> Self:
        """The configured size, for the dataset's column ``tokens``.

        The column holds one token more than the sequence length, as each predicts the next.

        Raises:
            InputError: if there is no such column, or it holds what no embedding has a row for.
        """
        preset, chosen = PRESETS[config.preset], config.text
        width, heads = chosen.width or preset.width, chosen.heads or preset.heads
        if width % heads:
            raise InputError(
                f"workload.text: a width of {width:,} cannot be split into {heads:,} heads; "
                "set workload.text.width to a multiple of workload.text.heads"
            )
        column = _column(manifest)
        vocabulary = _vocabulary(manifest, column)
        _refuse_other_tokens(manifest, vocabulary)
        return cls(
            preset=config.preset,
            layers=chosen.layers or preset.layers,
            width=width,
            heads=heads,
            vocabulary=vocabulary,
            sequence_length=column.shape[0] - 1,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The tokens."""
        return (TOKENS,)

    @property
    def features(self) -> Mapping[str, TensorSpec]:
        """The tokens but the last."""
        return {TOKENS: TensorSpec((self.sequence_length,), "int64")}

    @property
    def target(self) -> TensorSpec:
        """The tokens but the first."""
        return TensorSpec((self.sequence_length,), "int64")

    def dense_layers(self) -> Iterator[tuple[str, int, int]]:
        """Name, input and output width of every dense layer, in order."""
        width = self.width
        for block in self.blocks():
            yield f"{block}_attention_in", width, 3 * width
            yield f"{block}_attention_out", width, width
            yield f"{block}_mlp_in", width, 4 * width
            yield f"{block}_mlp_out", 4 * width, width

    def blocks(self) -> Iterator[str]:
        """The names of the transformer blocks, in order."""
        return (f"block{number}" for number in range(1, self.layers + 1))

    def norms(self) -> Iterator[str]:
        """The names of the LayerNorms, in order."""
        for block in self.blocks():
            yield f"{block}_attention_norm"
            yield f"{block}_mlp_norm"
        yield "final_norm"

    def initial_weights(self, seed: int) -> Weights:
        """GPT-2's: normal values of deviation 0.02, biases 0, LayerNorms' scales 1.

        What a block adds to the sum of all blocks (``attention_out``, ``mlp_out``) starts smaller
        by the root of the number of such terms, two per block (Radford et al., 2019).
        """
        weights: Weights = {}

        def add(name: str, shape: tuple[int, ...], deviation: float = _DEVIATION) -> None:
            weights[name] = seeded_normal(name, shape, deviation, seed)

        add("token_embedding/embedding", (self.vocabulary, self.width))
        add("position_embedding/embedding", (self.sequence_length, self.width))
        for name, inputs, outputs in self.dense_layers():
            terms = 2 * self.layers if name.endswith("_out") else 1
            add(f"{name}/kernel", (inputs, outputs), _DEVIATION / math.sqrt(terms))
            weights[f"{name}/bias"] = np.zeros(outputs, np.float32)
        for name in self.norms():
            weights[f"{name}/scale"] = np.ones(self.width, np.float32)
            weights[f"{name}/bias"] = np.zeros(self.width, np.float32)
        return weights

    def prepare(self, columns: Columns, statistics: Mapping[str, ColumnStatistics]) -> Batch:
        """All tokens but the last, and all but the first, of (examples, sequence_length + 1)."""
        tokens = columns[TOKENS]
        return (
            {TOKENS: np.ascontiguousarray(tokens[:, :-1])},
            np.ascontiguousarray(tokens[:, 1:]),
        )

    def transform_config(self) -> dict[str, Any]:
        """The column, and how many of its tokens are predicted."""
        return {"column": TOKENS, "sequence_length": self.sequence_length}

    def forward_flops_per_example(self) -> int:
        """Dense layers, attention and the output, 2 per multiply-add; the rest is left out.

        For T tokens, width W, L layers and a vocabulary V: ``T (24 L W^2 + 4 L T W + 2 W V)``.
        Attention counts every pair of tokens, as is customary, though half of them are masked.
        """
        tokens, width = self.sequence_length, self.width
        dense = sum(2 * inputs * outputs for _, inputs, outputs in self.dense_layers())
        attention = self.layers * 4 * tokens * width
        return tokens * (dense + attention + 2 * width * self.vocabulary)


def _column(manifest: Manifest) -> Feature:
    found = {feature.name: feature for feature in manifest.features}
    if TOKENS not in found:
        raise InputError(
            f"workload.name: text takes a column '{TOKENS}', which this dataset lacks; it has: "
            f"{', '.join(found)}; set data.source to text, or workload.name to another"
        )
    column = found[TOKENS]
    if column.dtype != "int64" or len(column.shape) != 1 or column.shape[0] < 2:
        raise InputError(
            f"workload.name: text takes '{TOKENS}' as int64 of shape (sequence_length + 1,); the "
            f"dataset has {column.kind}"
        )
    return column


def _vocabulary(manifest: Manifest, column: Feature) -> int:
    """The number of tokens: the source's, or the contract's greatest and one more."""
    if manifest.label is None and manifest.classes is not None:
        return manifest.classes
    if column.values is not None:
        return 1 + max(int(value) for value in column.values)
    if column.max is not None:
        return 1 + int(column.max)
    raise InputError(
        f"{TOKENS}: the size of its vocabulary is unknown; name a schema in data.expected that "
        "says the column's max"
    )


def _refuse_other_tokens(manifest: Manifest, vocabulary: int) -> None:
    for split, columns in manifest.statistics.items():
        found = columns[TOKENS]
        if found.missing or found.not_finite:
            raise InputError(
                f"{TOKENS}: {found.missing or found.not_finite:,} are missing from the {split} "
                "split; leave such examples out of the data"
            )
        if found.min is not None and found.max is not None:
            for token in (int(found.min), int(found.max)):
                if not 0 <= token < vocabulary:
                    raise InputError(
                        f"{TOKENS}: the {split} split has {token}, outside the vocabulary of 0 to "
                        f"{vocabulary - 1:,}; raise the column's max in data.expected, or mend "
                        "the data"
                    )
