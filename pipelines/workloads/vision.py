"""``vision``: a residual CNN in the pre-activation form (He et al., 2016b).

The network, for widths (w1, w2, ...), with ``act`` for normalisation, if any, and activation:

    stem: conv 3x3; of the ImageNet presets, for images of 64 pixels and more, conv 7x7 of stride
        2 and the maximum over 3x3 pixels of stride 2
    for each stage its blocks: x + conv2(act(conv1(act(x)))) of 3x3 convolutions, or the
        bottleneck x + conv3(act(conv2(act(conv1(act(x)))))) of 1x1, 3x3 and 1x1, the first two of
        a quarter of the width
        the first block of every stage but the first halves the image (stride 2 in its first 3x3)
        where size or width change, the shortcut is a 1x1 convolution instead of x
    act, mean over the image, dense to the classes

Every convolution and maximum of an odd size n pads n // 2 pixels on each side, also at stride 2
(Keras's ``same`` would pad one side only there); convolutions pad zeros, the maximum ignores what
is outside.

With normalisation, convolutions have no biases, which it would cancel or which the next one's
shift makes up for, and shortcuts project act(x), as published. Batch normalisation takes the
moments of the global batch, over all workers; its running statistics keep nine tenths at each
step, and the variance is the population's. Group normalisation (Wu & He, 2018) makes up to 32
groups.

Without normalisation, convolutions have biases, shortcuts project x, and residual branches start
scaled down instead (Zhang et al., 2019, "Fixup").

GELU is smooth: two correct implementations then stay together for longer than with ReLU, whose
kink turns one rounding into a different run.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from pipelines.ingest.columns import Columns
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import WorkloadConfig, WorkloadName
from pipelines.workloads.base import Batch, TensorSpec, Weights, Workload, seeded_normal
from pipelines.workloads.vision_columns import classes_of, find_image
from pipelines.workloads.vision_presets import PRESETS, VisionSize, resize

__all__ = ["EPSILON", "IMAGE", "MOMENTUM", "Block", "Convolution", "Vision"]

IMAGE = "image"
"""The network's one feature; the dataset's column may have another name."""
EPSILON = 1e-5
"""Added to the variance by every normalisation."""
MOMENTUM = 0.9
"""What batch normalisation's running statistics keep of themselves at each step."""

_LARGE = 64
"""Pixels of an image's shorter side from which on a stem shrinks it."""
_MOST_GROUPS = 32


@dataclass(frozen=True)
class Convolution:
    """A square convolution that pads ``padding`` zeros on each side."""

    name: str
    size: int
    input_width: int
    width: int
    stride: int = 1

    @property
    def padding(self) -> int:
        """Pixels added on each side."""
        return self.size // 2


@dataclass(frozen=True)
class Block:
    """One residual block."""

    name: str
    input_width: int
    width: int
    stride: int
    kind: Literal["basic", "bottleneck"] = "basic"

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a 1x1 convolution instead of the identity."""
        return self.stride != 1 or self.input_width != self.width

    @property
    def shortcut(self) -> Convolution:
        """The shortcut's convolution, where it projects."""
        return Convolution(f"{self.name}_shortcut", 1, self.input_width, self.width, self.stride)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The residual branch's, in order."""
        name, entering, width, stride = self.name, self.input_width, self.width, self.stride
        if self.kind == "basic":
            return (
                Convolution(f"{name}_conv1", 3, entering, width, stride),
                Convolution(f"{name}_conv2", 3, width, width),
            )
        inner = width // 4
        return (
            Convolution(f"{name}_conv1", 1, entering, inner),
            Convolution(f"{name}_conv2", 3, inner, inner, stride),
            Convolution(f"{name}_conv3", 1, inner, width),
        )

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the normalisations before each of the convolutions."""
        return tuple(f"{self.name}_norm{place + 1}" for place in range(len(self.convolutions)))


@dataclass(frozen=True)
class Vision(Workload):
    """The network at one size, for one dataset's images and classes.

    Layers are named ``stem``, ``stage<s>_block<b>_<conv|norm><n>``, ``.._shortcut``, ``norm`` and
    ``head``; images are (height, width, channels).
    """

    preset: str
    image_shape: tuple[int, int, int]
    classes: int
    size: VisionSize
    feature: str = IMAGE
    """The dataset's column of images."""
    label: str = "label"

    name: ClassVar[WorkloadName] = "vision"
    loss: ClassVar[Literal["softmax", "sigmoid"]] = "softmax"
    metrics: ClassVar[tuple[str, ...]] = ("eval_loss", "eval_accuracy")
    default_thresholds: ClassVar[Mapping[str, float]] = {"eval_accuracy": 0.95}

    @classmethod
    def build(cls, config: WorkloadConfig, manifest: Manifest) -> Self:
        """For the column ``image``, or the only one of rank 3, and the dataset's label."""
        image = find_image(manifest)
        height, width, channels = image.shape
        label, classes = classes_of(manifest)
        return cls(
            preset=config.preset,
            image_shape=(height, width, channels),
            classes=classes,
            size=resize(PRESETS[config.preset], config.vision),
            feature=image.name,
            label=label,
        )

    @property
    def is_smooth(self) -> bool:
        """Without ReLUs and the maximum pooling of large images."""
        return self.size.activation != "relu" and not self.shrinks

    @property
    def not_recomputable(self) -> str:
        """Batch normalisation keeps statistics of what it computes."""
        if self.size.normalization != "batch":
            return ""
        return (
            "computing batch normalisation again would update its running statistics twice; "
            "use another workload.vision.normalization"
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The images' and the label's."""
        return (self.feature, self.label)

    @property
    def features(self) -> Mapping[str, TensorSpec]:
        """The standardised image."""
        return {IMAGE: TensorSpec(self.image_shape, "float32")}

    @property
    def target(self) -> TensorSpec:
        """The class."""
        return TensorSpec((), "int64")

    @property
    def normalizes(self) -> bool:
        """Whether activations follow a normalisation; convolutions then have no biases."""
        return self.size.normalization != "none"

    @property
    def shrinks(self) -> bool:
        """Whether the stem quarters the image's sides, by its own stride and a maximum's."""
        return self.size.downsampling_stem and min(self.image_shape[:2]) >= _LARGE

    @property
    def stem(self) -> Convolution:
        """The first convolution."""
        entering = self.size.widths[0]
        width = entering // 4 if self.size.block == "bottleneck" else entering
        large, stride = (7, 2) if self.shrinks else (3, 1)
        return Convolution("stem", large, self.image_shape[2], width, stride)

    def blocks(self) -> Iterator[Block]:
        """The residual blocks from the stem to the head."""
        width = self.stem.width
        stages = zip(self.size.widths, self.size.blocks, strict=True)
        for stage, (stage_width, blocks) in enumerate(stages, start=1):
            for number in range(1, blocks + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                name = f"stage{stage}_block{number}"
                yield Block(name, width, stage_width, stride, self.size.block)
                width = stage_width

    def groups(self, width: int) -> int:
        """Group normalisation's groups of so many channels: the most up to 32 that divide them."""
        most = min(_MOST_GROUPS, width)
        return next(groups for groups in range(most, 0, -1) if width % groups == 0)

    def initial_weights(self, seed: int) -> Weights:
        """He-normal kernels (by their inputs), zero biases; normalisations start as identity.

        Without normalisation, each block's last kernel is divided by the square root of the
        number of blocks.
        """
        blocks = list(self.blocks())
        residual_scale = 1.0 if self.normalizes else 1 / math.sqrt(len(blocks))
        weights: Weights = {}

        def convolve(conv: Convolution, scale: float = 1.0) -> None:
            shape = (conv.size, conv.size, conv.input_width, conv.width)
            weights[f"{conv.name}/kernel"] = _he_normal(conv.name, shape, seed, scale)
            if not self.normalizes:
                weights[f"{conv.name}/bias"] = np.zeros(conv.width, np.float32)

        convolve(self.stem)
        for block in blocks:
            for norm, conv in zip(block.norms, block.convolutions, strict=True):
                weights |= self._norm_weights(norm, conv.input_width)
                convolve(conv, residual_scale if conv == block.convolutions[-1] else 1.0)
            if block.projects:
                convolve(block.shortcut)
        weights |= self._norm_weights("norm", self.size.widths[-1])
        shape = (self.size.widths[-1], self.classes)
        weights["head/kernel"] = _he_normal("head", shape, seed)
        weights["head/bias"] = np.zeros(self.classes, np.float32)
        return weights

    def prepare(self, columns: Columns, statistics: Mapping[str, ColumnStatistics]) -> Batch:
        """Images standardised by mean and standard deviation of all the train split's pixels."""
        fitted = statistics[self.feature]
        images = columns[self.feature].astype(np.float32)
        images -= np.float32(fitted.mean)
        images /= np.float32(fitted.std)
        return {IMAGE: images}, columns[self.label].astype(np.int64)

    def transform_config(self) -> dict[str, Any]:
        """The columns, and the shape of an image."""
        return {"feature": self.feature, "label": self.label, "shape": list(self.image_shape)}

    def forward_flops_per_example(self) -> int:
        """Convolutions and the dense layer, 2 x kernel x input x output x pixels each.

        Normalisations, activations, biases, additions and maxima are left out, as is customary.
        ResNet-50 has 4.09 G multiply-adds for 224 x 224 pixels, half of what this counts.
        """
        height, width, _ = self.image_shape
        flops = 0

        def convolve(conv: Convolution, height: int, width: int) -> tuple[int, int]:
            nonlocal flops
            height, width = -(-height // conv.stride), -(-width // conv.stride)
            flops += 2 * conv.size**2 * conv.input_width * conv.width * height * width
            return height, width

        height, width = convolve(self.stem, height, width)
        if self.shrinks:
            height, width = -(-height // 2), -(-width // 2)
        for block in self.blocks():
            if block.projects:
                convolve(block.shortcut, height, width)
            for conv in block.convolutions:
                height, width = convolve(conv, height, width)
        return flops + 2 * self.size.widths[-1] * self.classes

    def _norm_weights(self, name: str, width: int) -> Weights:
        if not self.normalizes:
            return {}
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        weights = {f"{name}/scale": ones, f"{name}/bias": zeros}
        if self.size.normalization == "batch":
            weights |= {f"{name}/mean": zeros.copy(), f"{name}/variance": ones.copy()}
        return weights


def _he_normal(
    layer: str, shape: tuple[int, ...], seed: int, scale: float = 1.0
) -> npt.NDArray[np.float32]:
    return seeded_normal(layer, shape, scale * math.sqrt(2 / math.prod(shape[:-1])), seed)
