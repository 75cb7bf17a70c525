"""Evaluation, and the bar that a model must clear to be blessed."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.config import Config
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.reader import sequential_batches
from pipelines.worker import Worker
from pipelines.workloads import Workload
from pipelines.workloads.evaluation import Evaluation
from torch_pipeline.data import open_dataset
from torch_pipeline.export import MODEL_NAME
from torch_pipeline.loss import mean_loss

__all__ = ["evaluate", "evaluate_exported"]

_EXPORTED_BATCH_SIZE = 256


def evaluate(
    config: Config, workload: Workload, model: nn.Module, transformed: Path | None = None
) -> dict[str, float]:
    """The workload's metrics of a model on the whole eval split."""
    example = next(model.parameters())

    def predictions() -> Iterable[tuple[Tensor, Tensor]]:
        for features, target in open_dataset(config, workload, "eval", Worker(), transformed):
            placed = {name: _placed(values, example) for name, values in features.items()}
            yield model(placed), target.to(example.device)

    model.eval()
    with torch.inference_mode():
        return _metrics(workload, predictions())


def evaluate_exported(workload: Workload, dataset: Dataset, model: Path) -> dict[str, float]:
    """The workload's metrics of an exported program on the raw eval split.

    What will be served is what is judged: ``model`` is the folder that ``export`` wrote.
    """
    program = torch.export.load(model / MODEL_NAME).module()
    statistics = dataset.manifest.statistics["train"]

    def predictions() -> Iterable[tuple[Tensor, Tensor]]:
        mapped = mapped_columns(dataset, "eval")
        read = {name: mapped[name] for name in workload.columns}
        for columns in sequential_batches(read, _EXPORTED_BATCH_SIZE):
            raw = {name: torch.tensor(columns[name]) for name in workload.served_columns}
            _, target = workload.prepare(columns, statistics)
            probabilities = program(raw)
            # Back to logits, of which the probabilities are made.
            if workload.loss == "sigmoid":
                yield torch.logit(probabilities), torch.from_numpy(target)
            else:
                yield probabilities.log(), torch.from_numpy(target)

    with torch.inference_mode():
        return _metrics(workload, predictions())


def _metrics(workload: Workload, predictions: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    found = Evaluation(workload)
    for logits, target in predictions:
        loss = float(mean_loss(workload, logits, target))
        found.add(loss, logits.cpu().numpy(), target.cpu().numpy())
    return found.metrics()


def _placed(values: Tensor, example: Tensor) -> Tensor:
    """On the parameters' device, and numbers in their precision."""
    return values.to(example.device, example.dtype if values.is_floating_point() else None)
