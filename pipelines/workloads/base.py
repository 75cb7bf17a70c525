"""What a workload is to the rest of the program: names, shapes, numbers; no framework."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.statistics import ColumnStatistics

__all__ = ["Weights", "Workload"]

Weights = dict[str, npt.NDArray[np.float32]]
"""Parameter name -> initial value, in the layout that the workload states."""


class Workload(ABC):
    """A model family at one size: everything about it that both frameworks must agree on."""

    name: str
    preset: str
    feature: str
    """The column that the model reads."""
    label: str
    """The column that it predicts."""
    classes: int
    thresholds: Mapping[str, float]
    """Metric -> least value for which a trained model is blessed."""

    @property
    def title(self) -> str:
        """Name and preset, as runs are labelled: ``vision/tiny``."""
        return f"{self.name}/{self.preset}"

    @abstractmethod
    def check_dataset(self, manifest: Manifest) -> None:
        """Refuse a dataset that cannot feed this workload.

        Raises:
            InputError: naming what it takes and what the dataset has.
        """

    @abstractmethod
    def initial_weights(self, seed: int) -> Weights:
        """Every trainable parameter by name, equal wherever it is called with one seed."""

    def prepare(
        self, columns: Columns, statistics: Mapping[str, ColumnStatistics]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Features standardised by the train split's statistics, and labels.

        This is what each framework's own transform computes too; the shared reader uses it so
        that both consume the same bits.
        """
        fitted = statistics[self.feature]
        values = columns[self.feature].astype(np.float32)
        features = (values - np.float32(fitted.mean)) / np.float32(fitted.std)
        return features, columns[self.label].astype(np.int64)

    @abstractmethod
    def forward_flops_per_example(self) -> int:
        """Floating-point operations (a multiply-add counts two) of one example's forward pass."""

    def training_flops_per_example(self) -> int:
        """Forward and backward pass: three times the forward pass (Kaplan et al., 2020)."""
        return 3 * self.forward_flops_per_example()
