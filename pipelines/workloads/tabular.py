"""``tabular``: embeddings, their interactions and dense layers (DLRM; Naumov et al., 2019).

For numbers x (standardised; a missing one is 0, with an input of its own that is 1 then) and codes
c_1, c_2, ... (rows of an embedding each), with dense layers of the widths that the preset names::

    z_0 = gelu(bottom_n(... gelu(bottom_1(x))))         as wide as an embedding
    z_k = embedding_k[c_k]                              k = 1, 2, ...
    p   = (z_i . z_j for i = 1, 2, ... for j < i)       dot products of all pairs
    logit = head(gelu(top_n(... gelu(top_1(z_0, p)))))

GELU, exact, stands where DLRM has ReLU: it is smooth, so that two correct implementations stay
together for hundreds of steps, while a ReLU's kink turns one rounding into a different run. Without
numeric columns, x is a constant one; z_0 is then a vector that is learned.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from pipelines.errors import InputError
from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import LabelRule, WorkloadConfig, WorkloadName
from pipelines.workloads.base import Batch, TensorSpec, Weights, Workload, seeded_normal
from pipelines.workloads.tabular_columns import (
    Category,
    check_label,
    choose_categories,
    choose_numeric,
    misses_any,
)

__all__ = ["LEAST_DEVIATION", "PRESETS", "DenseLayer", "Size", "Tabular"]

LEAST_DEVIATION = 1e-10
"""Share of a column's mean below which its standard deviation is but rounding: it is constant."""


@dataclass(frozen=True)
class Size:
    """A preset; ``workload.tabular`` has fields of the same names and says what they mean."""

    embedding_width: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    hash_buckets: int


PRESETS: Mapping[str, Size] = {
    "tiny": Size(embedding_width=8, bottom=(32,), top=(64, 32), hash_buckets=1_000),
    # MLPerf's DLRM, but for its tables, which have up to 40 million rows.
    "dlrm": Size(
        embedding_width=128,
        bottom=(512, 256),
        top=(1024, 1024, 512, 256),
        hash_buckets=1_000_000,
    ),
}


@dataclass(frozen=True)
class DenseLayer:
    """A dense layer: its name, and how wide its input and output are."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Tabular(Workload):
    """The network at one size, for a dataset's columns.

    Features are ``numbers`` (numeric columns, then an indicator for each that may miss) and
    ``codes`` (a row of each category's embedding).
    """

    name: ClassVar[WorkloadName] = "tabular"
    loss: ClassVar[Literal["softmax", "sigmoid"]] = "sigmoid"
    metrics: ClassVar[tuple[str, ...]] = ("eval_loss", "eval_auc")
    default_thresholds: ClassVar[Mapping[str, float]] = {"eval_auc": 0.75}

    preset: str
    numeric: tuple[str, ...]
    indicated: tuple[str, ...]
    """Numeric columns of which any value is missing."""
    categories: tuple[Category, ...]
    label: str
    positive_over: LabelRule | None
    size: Size

    @classmethod
    def build(cls, config: WorkloadConfig, manifest: Manifest) -> Self:
        """The workload at the configured size, for a dataset.

        Raises:
            InputError: naming the column, or field, that it cannot take.
        """
        own, preset = config.tabular, PRESETS[config.preset]
        size = Size(
            embedding_width=own.embedding_width or preset.embedding_width,
            bottom=tuple(own.bottom or preset.bottom),
            top=tuple(own.top or preset.top),
            hash_buckets=own.hash_buckets or preset.hash_buckets,
        )
        label = check_label(own.positive_over, manifest)
        numeric = choose_numeric(own, manifest)
        categories = choose_categories(own, manifest, size.hash_buckets)
        if not numeric and not categories:
            raise InputError(
                "workload.tabular: no column is left to predict from; "
                f"besides '{label}', the dataset needs numbers or strings that are not ignored"
            )
        return cls(
            preset=config.preset,
            numeric=numeric,
            indicated=tuple(name for name in numeric if misses_any(name, manifest)),
            categories=categories,
            label=label,
            positive_over=own.positive_over,
            size=size,
        )

    @property
    def not_recomputable(self) -> str:
        """Never: it has no blocks."""
        return "tabular has no repeated blocks whose activations are worth it; use vision or text"

    @property
    def columns(self) -> tuple[str, ...]:
        """Features, then what the target is made of."""
        over = () if self.positive_over is None else (self.positive_over.column,)
        return tuple(dict.fromkeys((*self.served_columns, *over, self.label)))

    @property
    def served_columns(self) -> tuple[str, ...]:
        """The columns that features are made of."""
        return (*self.numeric, *(category.column for category in self.categories))

    @property
    def features(self) -> Mapping[str, TensorSpec]:
        """``numbers``, and ``codes`` if there is any category."""
        specs = {"numbers": TensorSpec((self.bottom_layers[0].inputs,), "float32")}
        if self.categories:
            specs["codes"] = TensorSpec((len(self.categories),), "int64")
        return specs

    @property
    def target(self) -> TensorSpec:
        """0 or 1."""
        return TensorSpec((), "float32")

    @property
    def bottom_layers(self) -> tuple[DenseLayer, ...]:
        """What the numbers go through, a GELU after each."""
        inputs = len(self.numeric) + len(self.indicated) or 1
        return _layers("bottom", (inputs, *self.size.bottom, self.size.embedding_width))

    @property
    def pairs(self) -> tuple[int, ...]:
        """Places of the dot products that are used, in the square of all of them, row by row."""
        vectors = 1 + len(self.categories)
        return tuple(row * vectors + column for row in range(vectors) for column in range(row))

    @property
    def top_layers(self) -> tuple[DenseLayer, ...]:
        """What interactions and the bottom network's output go through, a GELU after each."""
        inputs = self.size.embedding_width + len(self.pairs)
        return _layers("top", (inputs, *self.size.top))

    @property
    def head(self) -> DenseLayer:
        """The last layer, to the logit."""
        return DenseLayer("head", self.top_layers[-1].outputs, 1)

    def initial_weights(self, seed: int) -> Weights:
        """Embeddings and kernels as DLRM's reference draws them, but normal; zero biases.

        Deviations are those of the reference (``facebookresearch/dlrm``, ``dlrm_s_pytorch.py``):
        1 / sqrt(3 rows) for embeddings, there uniform up to 1 / sqrt(rows), and
        sqrt(2 / (inputs + outputs)) for kernels (Glorot & Bengio, 2010).
        """
        weights: Weights = {}
        for category in self.categories:
            name, shape = f"{category.layer}/embedding", (category.rows, self.size.embedding_width)
            weights[name] = seeded_normal(name, shape, 1 / math.sqrt(3 * category.rows), seed)
        for layer in (*self.bottom_layers, *self.top_layers, self.head):
            deviation = math.sqrt(2 / (layer.inputs + layer.outputs))
            name, shape = f"{layer.name}/kernel", (layer.inputs, layer.outputs)
            weights[name] = seeded_normal(name, shape, deviation, seed)
            weights[f"{layer.name}/bias"] = np.zeros(layer.outputs, np.float32)
        return weights

    def prepare(self, columns: Columns, statistics: Mapping[str, ColumnStatistics]) -> Batch:
        """Standardised numbers and embeddings' rows; the target is 0 or 1.

        Numbers are standardised in float64, since dates and the like have more digits than float32
        keeps. ``positive_over`` compares in float32, as TFX's taxi example does: tips are often a
        fifth of the fare exactly, and should stay so.
        """
        features: dict[str, npt.NDArray[np.generic]] = {
            "numbers": self._numbers(columns, statistics)
        }
        if self.categories:
            codes = [category.codes(columns[category.column]) for category in self.categories]
            features["codes"] = np.stack(codes, axis=1)
        return features, self._target(columns)

    def _numbers(
        self, columns: Columns, statistics: Mapping[str, ColumnStatistics]
    ) -> npt.NDArray[np.float32]:
        if not self.numeric:
            return np.ones((len(columns[self.label]), 1), np.float32)
        values = np.stack([columns[name] for name in self.numeric], axis=1, dtype=np.float64)
        fitted = [statistics[name] for name in self.numeric]
        mean = np.array([each.mean for each in fitted], np.float64)
        deviation = np.array([each.std for each in fitted], np.float64)
        deviation[deviation <= LEAST_DEVIATION * np.abs(mean)] = 1
        missing = ~np.isfinite(values)
        standardised = np.where(missing, 0, (values - mean) / deviation)
        indicated = missing[:, [self.numeric.index(name) for name in self.indicated]]
        return np.concatenate([standardised, indicated], axis=1, dtype=np.float32)

    def _target(self, columns: Columns) -> npt.NDArray[np.float32]:
        label = columns[self.label].astype(np.float32)
        if self.positive_over is None:
            return label
        over = columns[self.positive_over.column].astype(np.float32)
        return (label > np.float32(self.positive_over.share) * over).astype(np.float32)

    def transform_config(self) -> dict[str, Any]:
        """The columns, and how each is encoded."""
        rule = self.positive_over
        return {
            "numeric": list(self.numeric),
            "indicated": list(self.indicated),
            "categories": [
                {
                    "column": category.column,
                    "is_text": category.is_text,
                    "vocabulary": category.vocabulary and list(category.vocabulary),
                    "values": category.values,
                }
                for category in self.categories
            ],
            "label": self.label,
            "positive_over": rule and rule.model_dump(),
        }

    def forward_flops_per_example(self) -> int:
        """Dense layers, 2 x inputs x outputs each, and 2 x vectors^2 x width for dot products.

        All pairs of vectors are multiplied, as one matrix product, although fewer than half are
        used. Looking up embeddings, activations and biases are left out, as is customary.
        """
        layers = (*self.bottom_layers, *self.top_layers, self.head)
        dense = sum(2 * layer.inputs * layer.outputs for layer in layers)
        vectors = 1 + len(self.categories)
        products = 2 * vectors**2 * self.size.embedding_width if self.categories else 0
        return dense + products


def _layers(name: str, widths: tuple[int, ...]) -> tuple[DenseLayer, ...]:
    return tuple(
        DenseLayer(f"{name}_{number}", widths[number - 1], widths[number])
        for number in range(1, len(widths))
    )
