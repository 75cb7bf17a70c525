"""The workload's network in PyTorch, from the workload's own initial weights."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.workloads import Vision
from pipelines.workloads.vision import Block

__all__ = ["build_model"]


def build_model(workload: Vision, seed: int) -> nn.Module:
    """A network from images (batch, channels, height, width) to logits (batch, classes)."""
    model = _ResidualNetwork(workload)
    weights = workload.initial_weights(seed)
    with torch.no_grad():
        for name, layer in model.named_children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_(_as_torch(weights[f"{name}/kernel"]))
                layer.bias.copy_(torch.from_numpy(weights[f"{name}/bias"]))
    return model


class _ResidualNetwork(nn.Module):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Vision) -> None:
        super().__init__()
        self._blocks = list(workload.blocks())
        self.stem = nn.Conv2d(workload.image_shape[2], workload.widths[0], 3, padding=1)
        for block in self._blocks:
            for name, layer in _block_layers(block).items():
                self.add_module(f"{block.name}_{name}", layer)
        self.head = nn.Linear(workload.widths[-1], workload.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self._blocks:
            x = self._residual(x, block)
        x = functional.gelu(x).mean(dim=(2, 3))
        return self.head(x)

    def _residual(self, x: Tensor, block: Block) -> Tensor:
        shortcut = self.get_submodule(f"{block.name}_shortcut")(x) if block.projects else x
        y = self.get_submodule(f"{block.name}_conv1")(functional.gelu(x))
        y = self.get_submodule(f"{block.name}_conv2")(functional.gelu(y))
        return shortcut + y


def _block_layers(block: Block) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(block.input_width, block.width, 3, stride=block.stride, padding=1),
        "conv2": nn.Conv2d(block.width, block.width, 3, padding=1),
    }
    if block.projects:
        layers["shortcut"] = nn.Conv2d(block.input_width, block.width, 1, stride=block.stride)
    return layers


def _as_torch(kernel: np.ndarray) -> Tensor:
    """From (height, width, input, output) or (input, output) to torch's output-first layout."""
    axes = (3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(axes)))
