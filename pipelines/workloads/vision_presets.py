"""The sizes of the ``vision`` network, by name, and what a configuration changes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipelines.errors import InputError
from pipelines.workload_config import VisionWorkloadConfig

__all__ = ["PRESETS", "VisionSize", "resize"]


@dataclass(frozen=True)
class VisionSize:
    """Everything about the network but the images and their classes."""

    widths: tuple[int, ...]
    """Channels that leave each stage."""
    blocks: tuple[int, ...]
    """Residual blocks of each stage."""
    block: Literal["basic", "bottleneck"]
    normalization: Literal["none", "batch", "group"]
    activation: Literal["gelu", "relu"]
    downsampling_stem: bool = False
    """Whether large images begin with a 7x7 convolution and a maximum, each of stride 2."""


PRESETS: Mapping[str, VisionSize] = {
    "tiny": VisionSize((16, 32), (1, 1), "basic", "none", "gelu"),
    "small": VisionSize((16, 32, 64), (3, 3, 3), "basic", "batch", "gelu"),
    "resnet18": VisionSize((64, 128, 256, 512), (2, 2, 2, 2), "basic", "batch", "relu", True),
    "resnet50": VisionSize(
        (256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck", "batch", "relu", True
    ),
}
"""``small`` is the 20-layer network that He et al. (2016a) train on CIFAR-10, ``resnet18`` and
``resnet50`` are theirs for ImageNet; all in the form of ``pipelines.workloads.vision``."""


def resize(size: VisionSize, changes: VisionWorkloadConfig) -> VisionSize:
    """The size with the changes that a configuration makes.

    Raises:
        InputError: if the result is no network.
    """
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in changes.model_dump(exclude_none=True).items()
    }
    resized = replace(size, **given)
    if len(resized.blocks) != len(resized.widths):
        raise InputError(
            f"workload.vision.blocks: names {len(resized.blocks)} stages, widths name "
            f"{len(resized.widths)}; give both, equally long"
        )
    if resized.block == "bottleneck" and any(width % 4 for width in resized.widths):
        raise InputError(
            f"workload.vision.widths: a bottleneck block computes in a quarter of its width; "
            f"give multiples of 4, not {list(resized.widths)}"
        )
    return resized
