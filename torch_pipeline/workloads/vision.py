"""``vision`` in PyTorch."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.workloads.base import TARGET
from pipelines.workloads.vision import EPSILON, IMAGE, MOMENTUM, Block, Convolution, Vision
from torch_pipeline.workloads import block
from torch_pipeline.workloads.batch_norm import GlobalBatchNorm

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, Tensor]

_IMAGES_AT_ONCE = 1024


def build_network(workload: Vision, recompute: bool = False) -> nn.Module:
    """From images (batch, height, width, channels) to logits (batch, classes).

    With ``recompute``, activations inside the blocks are computed again for the gradient.
    """
    return _ResidualNetwork(workload, recompute)


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
    """Blocks and layers are named as the workload names them."""

    def __init__(self, workload: Vision, recompute: bool) -> None:
        super().__init__()
        self._workload = workload
        self._blocks = [described.name for described in workload.blocks()]
        _add_convolution(self, workload, workload.stem)
        for described in workload.blocks():
            self.add_module(described.name, _ResidualBlock(workload, described, recompute))
        _add_norm(self, workload, "norm", workload.size.widths[-1])
        self.head = nn.Linear(workload.size.widths[-1], workload.classes)

    def forward(self, features: Tensors) -> Tensor:
        # A view: what was channels-last in memory stays so.
        x = self.get_submodule("stem")(features[IMAGE].permute(0, 3, 1, 2))
        if self._workload.shrinks:
            x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for name in self._blocks:
            x = self.get_submodule(name)(x)
        return self.head(_activate(self, self._workload, x, "norm").mean(dim=(2, 3)))


class _ResidualBlock(block.Block):
    """The layers lie flat, named as the workload names them."""

    def __init__(self, workload: Vision, described: Block, recompute: bool) -> None:
        super().__init__(recompute)
        self._workload = workload
        self._described = described
        for norm, conv in zip(described.norms, described.convolutions, strict=True):
            _add_norm(self, workload, norm, conv.input_width)
            _add_convolution(self, workload, conv)
        if described.projects:
            _add_convolution(self, workload, described.shortcut)

    def compute(self, x: Tensor) -> Tensor:
        """From (batch, input width, height, width) to the block's width, perhaps half the size."""
        described = self._described
        shortcut = branch = x
        for place, (norm, conv) in enumerate(
            zip(described.norms, described.convolutions, strict=True)
        ):
            branch = _activate(self, self._workload, branch, norm)
            if place == 0 and described.projects:
                entering = branch if self._workload.normalizes else x
                shortcut = self.get_submodule(described.shortcut.name)(entering)
            branch = self.get_submodule(conv.name)(branch)
        return shortcut + branch


def _activate(owner: nn.Module, workload: Vision, x: Tensor, norm: str) -> Tensor:
    if workload.normalizes:
        x = owner.get_submodule(norm)(x).to(x.dtype)  # autocast leaves some norms in float32
    return getattr(functional, workload.size.activation)(x)


def _add_convolution(owner: nn.Module, workload: Vision, conv: Convolution) -> None:
    owner.add_module(
        conv.name,
        nn.Conv2d(
            conv.input_width,
            conv.width,
            conv.size,
            stride=conv.stride,
            padding=conv.padding,
            bias=not workload.normalizes,
        ),
    )


def _add_norm(owner: nn.Module, workload: Vision, name: str, width: int) -> None:
    if workload.size.normalization == "batch":
        owner.add_module(name, GlobalBatchNorm(width, MOMENTUM, EPSILON))
    elif workload.size.normalization == "group":
        owner.add_module(name, nn.GroupNorm(workload.groups(width), width, EPSILON))
