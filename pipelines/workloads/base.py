"""What a workload is to the rest of the program: names, shapes, numbers; no framework."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import WorkloadConfig, WorkloadName

__all__ = ["TARGET", "Batch", "TensorSpec", "Weights", "Workload", "seeded_normal"]

Weights = dict[str, npt.NDArray[np.float32]]
"""Parameter name -> initial value, in the layout that the workload states.

A name is ``<layer>/<kind>``. Kinds and layouts: ``kernel`` (height, width, input, output) of a
convolution or (input, output) of a dense layer; ``embedding`` (rows, width); ``bias``, ``scale``,
``mean`` and ``variance`` (width,), the last two being running statistics.
"""

Batch = tuple[dict[str, npt.NDArray[np.generic]], npt.NDArray[np.generic]]
"""Model-ready features by name, and the target; the first axis of each is the example."""

TARGET = "target"
"""The name under which a transform stores the target beside the features."""


@dataclass(frozen=True)
class TensorSpec:
    """One example's part of a model-ready tensor."""

    shape: tuple[int, ...]
    dtype: Literal["float32", "int64"]


class Workload(ABC):
    """A model family at one size, fitted to one dataset's columns.

    It says everything that both frameworks must agree on.
    """

    name: ClassVar[WorkloadName]
    loss: ClassVar[Literal["softmax", "sigmoid"]]
    """Cross-entropy over the classes on the logits' last axis, or of one logit per example; the
    mean over all predictions."""
    metrics: ClassVar[tuple[str, ...]]
    """What evaluation reports."""
    default_thresholds: ClassVar[Mapping[str, float]]
    """Metric -> what a model must reach to be blessed."""
    predicts_sequences: ClassVar[bool] = False
    """Whether an example has many predictions (a text's tokens), not one."""

    preset: str

    @classmethod
    @abstractmethod
    def build(cls, config: WorkloadConfig, manifest: Manifest) -> Self:
        """The workload at the configured size, for a dataset.

        Raises:
            InputError: naming what it takes and what the dataset, or the config, has.
        """

    @property
    def title(self) -> str:
        """Name and preset, as runs are labelled: ``vision/tiny``."""
        return f"{self.name}/{self.preset}"

    @property
    def predictions_per_example(self) -> int:
        """How many predictions the loss is the mean of, per example."""
        return math.prod(self.target.shape)

    @property
    def is_smooth(self) -> bool:
        """Whether the network has no kinks, such as a ReLU's or a maximum's."""
        return True

    @property
    def not_recomputable(self) -> str:
        """Why activations cannot be computed again for the gradient; empty if they can."""
        return ""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The dataset's columns that it reads."""

    @property
    def served_columns(self) -> tuple[str, ...]:
        """The columns that a published model takes: all but the label's."""
        label = self.transform_config().get("label")
        return tuple(column for column in self.columns if column != label)

    @property
    @abstractmethod
    def features(self) -> Mapping[str, TensorSpec]:
        """What the network takes."""

    @property
    @abstractmethod
    def target(self) -> TensorSpec:
        """What the network is to predict."""

    @abstractmethod
    def initial_weights(self, seed: int) -> Weights:
        """Every parameter by name, equal wherever it is called with one seed.

        Running statistics (``mean``, ``variance``) are included.
        """

    @abstractmethod
    def prepare(self, columns: Columns, statistics: Mapping[str, ColumnStatistics]) -> Batch:
        """Model-ready features and target, of columns as the dataset's cache encodes them.

        This is what each framework's own transform computes too; the shared reader uses it so
        that both consume the same bits. ``statistics`` are the train split's.
        """

    @abstractmethod
    def transform_config(self) -> dict[str, Any]:
        """What the frameworks' transforms need to know, as JSON can carry it."""

    @abstractmethod
    def forward_flops_per_example(self) -> int:
        """Floating-point operations (a multiply-add counts two) of one example's forward pass."""

    def training_flops_per_example(self) -> int:
        """Forward and backward pass: three times the forward pass (Kaplan et al., 2020)."""
        return 3 * self.forward_flops_per_example()


def seeded_normal(
    name: str, shape: tuple[int, ...], deviation: float, seed: int
) -> npt.NDArray[np.float32]:
    """Normal values of a parameter's own generator, so that adding one parameter moves no other."""
    generator = np.random.default_rng([seed, *name.encode()])
    return (generator.standard_normal(shape) * deviation).astype(np.float32)
