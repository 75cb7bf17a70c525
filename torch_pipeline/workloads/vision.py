"""``vision`` in PyTorch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.workloads.base import TARGET
from pipelines.workloads.vision import EPSILON, IMAGE, MOMENTUM, Block, Convolution, Vision
from torch_pipeline.workloads.batch_norm import GlobalBatchNorm

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, Tensor]

_IMAGES_AT_ONCE = 1024


def build_network(workload: Vision) -> nn.Module:
    """From images (batch, height, width, channels) to logits (batch, classes)."""
    return _ResidualNetwork(workload)


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Mean and standard deviation of all pixels, as float32 scalars."""
    pixels = inputs[config["feature"]]
    parts = pixels.split(_IMAGES_AT_ONCE)  # bounds the memory that float64 takes
    mean = sum(part.double().sum() for part in parts) / pixels.numel()
    variance = sum((part.double() - mean).square().sum() for part in parts) / pixels.numel()
    return {"mean": mean.float(), "std": variance.sqrt().float()}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """Standardised images (batch, height, width, channels), and classes (batch,) if any."""
    pixels = inputs[config["feature"]].to(torch.float32)
    images = (pixels.reshape(-1, *config["shape"]) - fitted["mean"]) / fitted["std"]
    if config["label"] not in inputs:
        return {IMAGE: images}
    return {IMAGE: images, TARGET: inputs[config["label"]].reshape(-1)}


class _ResidualNetwork(nn.Module):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Vision) -> None:
        super().__init__()
        self._workload = workload
        self._blocks = list(workload.blocks())
        self._activation = getattr(functional, workload.size.activation)
        self._add_convolution(workload.stem)
        for block in self._blocks:
            for norm, conv in zip(block.norms, block.convolutions, strict=True):
                self._add_norm(norm, conv.input_width)
                self._add_convolution(conv)
            if block.projects:
                self._add_convolution(block.shortcut)
        self._add_norm("norm", workload.size.widths[-1])
        self.head = nn.Linear(workload.size.widths[-1], workload.classes)

    def forward(self, features: Tensors) -> Tensor:
        # A view: what was channels-last in memory stays so.
        x = self._layer("stem")(features[IMAGE].permute(0, 3, 1, 2))
        if self._workload.shrinks:
            x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for block in self._blocks:
            x = self._residual(x, block)
        return self.head(self._activate(x, "norm").mean(dim=(2, 3)))

    def _residual(self, x: Tensor, block: Block) -> Tensor:
        shortcut = branch = x
        for place, (norm, conv) in enumerate(zip(block.norms, block.convolutions, strict=True)):
            branch = self._activate(branch, norm)
            if place == 0 and block.projects:
                entering = branch if self._workload.normalizes else x
                shortcut = self._layer(block.shortcut.name)(entering)
            branch = self._layer(conv.name)(branch)
        return shortcut + branch

    def _activate(self, x: Tensor, norm: str) -> Tensor:
        if self._workload.normalizes:
            x = self._layer(norm)(x).to(x.dtype)  # autocast leaves some norms in float32
        return self._activation(x)

    def _layer(self, name: str) -> nn.Module:
        return self.get_submodule(name)

    def _add_convolution(self, conv: Convolution) -> None:
        self.add_module(
            conv.name,
            nn.Conv2d(
                conv.input_width,
                conv.width,
                conv.size,
                stride=conv.stride,
                padding=conv.padding,
                bias=not self._workload.normalizes,
            ),
        )

    def _add_norm(self, name: str, width: int) -> None:
        if self._workload.size.normalization == "batch":
            self.add_module(name, GlobalBatchNorm(width, MOMENTUM, EPSILON))
        elif self._workload.size.normalization == "group":
            self.add_module(name, nn.GroupNorm(self._workload.groups(width), width, EPSILON))
