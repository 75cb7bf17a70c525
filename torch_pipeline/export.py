"""Export: one ``torch.export`` program that takes raw features, the fitted transform inside."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.workloads import Vision
from torch_pipeline.transform import load_transform

__all__ = ["MODEL_NAME", "export"]

MODEL_NAME = "model.pt2"


def export(workload: Vision, model: nn.Module, transform: Path, output: Path) -> None:
    """Write the model, with the transform fitted in the folder ``transform``, to ``output``.

    ``model.pt2`` takes raw images (batch, height, width, channels) and returns probabilities
    (batch, classes).
    """
    output.mkdir(parents=True, exist_ok=True)
    served = _Served(workload, model, transform).eval()
    example = torch.zeros(2, *workload.image_shape)
    batch = torch.export.Dim("batch")
    program = torch.export.export(served, (example,), dynamic_shapes={"raw": {0: batch}})
    torch.export.save(program, output / MODEL_NAME)


class _Served(nn.Module):
    def __init__(self, workload: Vision, model: nn.Module, transform: Path) -> None:
        super().__init__()
        self._model = model.cpu()
        self._transform = load_transform(transform)
        self._feature = workload.feature

    def forward(self, raw: Tensor) -> Tensor:
        features = self._transform({self._feature: raw})[self._feature]
        return torch.softmax(self._model(features.permute(0, 3, 1, 2)), dim=1)
