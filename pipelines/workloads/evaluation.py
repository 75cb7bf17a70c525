"""A workload's metrics, of losses and logits that a framework has computed batch by batch."""

import math

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from pipelines.workloads.base import Workload

__all__ = ["Evaluation"]

Values = npt.NDArray[np.generic]


class Evaluation:
    """Collects an evaluation; what is common to both frameworks is counted once, here."""

    def __init__(self, workload: Workload) -> None:
        self._metrics = workload.metrics
        self._examples = 0
        self._loss = 0.0
        self._correct = 0
        self._scores: list[Values] = []
        self._truths: list[Values] = []

    def add(self, loss: float, logits: Values, target: Values) -> None:
        """One batch: its mean loss, its logits, and what they should say."""
        self._examples += len(target)
        self._loss += loss * len(target)
        if logits.dtype.itemsize < 4:  # scikit-learn knows no bfloat16
            logits = logits.astype(np.float32)
        if "eval_accuracy" in self._metrics:
            self._correct += int((logits.argmax(axis=-1) == target).sum())
        if "eval_auc" in self._metrics:
            self._scores.append(logits)
            self._truths.append(target)

    def metrics(self) -> dict[str, float]:
        """The workload's metrics over all batches."""
        found = {"eval_loss": self._loss / self._examples}
        if "eval_accuracy" in self._metrics:
            found["eval_accuracy"] = self._correct / self._examples
        if "eval_perplexity" in self._metrics:
            found["eval_perplexity"] = math.exp(found["eval_loss"])
        if "eval_auc" in self._metrics:
            truths, scores = np.concatenate(self._truths), np.concatenate(self._scores)
            found["eval_auc"] = float(roc_auc_score(truths, scores))
        return found
