"""Evaluation, and the bar that a model must clear to be blessed."""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from pipelines.config import Config
from pipelines.ingest.dataset import Dataset
from pipelines.worker import Worker
from pipelines.workloads import Vision
from torch_pipeline.data import open_dataset
from torch_pipeline.export import MODEL_NAME

__all__ = ["evaluate", "evaluate_exported"]


def evaluate(
    config: Config, workload: Vision, model: nn.Module, transformed: Path | None = None
) -> dict[str, float]:
    """``eval_loss`` and ``eval_accuracy`` of a model on the whole eval split."""
    device = next(model.parameters()).device
    loss = MeanMetric().to(device)
    accuracy = MulticlassAccuracy(workload.classes, average="micro").to(device)
    model.eval()
    with torch.inference_mode():
        for features, labels in open_dataset(config, workload, "eval", Worker(), transformed):
            labels = labels.to(device)
            logits = model(features.to(device))
            loss.update(functional.cross_entropy(logits, labels), weight=len(labels))
            accuracy.update(logits, labels)
    return {"eval_loss": float(loss.compute()), "eval_accuracy": float(accuracy.compute())}


def evaluate_exported(workload: Vision, dataset: Dataset, model: Path) -> dict[str, float]:
    """``eval_loss`` and ``eval_accuracy`` of an exported program on the raw eval split.

    What will be served is what is judged: ``model`` is the folder that ``export`` wrote.
    """
    program = torch.export.load(model / MODEL_NAME).module()
    columns = dataset.columns("eval")
    labels = torch.tensor(columns[workload.label])
    with torch.inference_mode():
        probabilities = program(torch.tensor(columns[workload.feature]))
    accuracy = MulticlassAccuracy(workload.classes, average="micro")
    return {
        "eval_loss": float(functional.nll_loss(probabilities.log(), labels)),
        "eval_accuracy": float(accuracy(probabilities, labels)),
    }
