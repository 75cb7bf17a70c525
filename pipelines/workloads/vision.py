"""``vision``: a small residual CNN (He et al., 2016, pre-activation form) with GELU.

GELU instead of ReLU because it is smooth: two correct implementations then stay together for
hundreds of steps, while a ReLU's kink turns one rounding into a different run. There is no
normalisation; residual branches start scaled down instead (Zhang et al., 2019, "Fixup").

The network, for widths (w1, w2, ...):

    stem: conv 3x3, w1
    for each stage s: ``blocks`` times  x + conv2(gelu(conv1(gelu(x))))
        the first block of every stage but the first halves the image (stride 2 in conv1) and
        takes its shortcut through a 1x1 convolution of stride 2
    gelu, mean over the image, dense to the classes

Every 3x3 convolution pads one pixel on each side, also at stride 2 (Keras's ``same`` would pad
one side only there).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipelines.errors import InputError
from pipelines.ingest.manifest import Manifest
from pipelines.workloads.base import Weights, Workload

__all__ = ["PRESETS", "Block", "Vision"]


@dataclass(frozen=True)
class Block:
    """One residual block."""

    name: str
    input_width: int
    width: int
    stride: int

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a 1x1 convolution instead of the identity."""
        return self.stride != 1 or self.input_width != self.width


@dataclass(frozen=True)
class Vision(Workload):
    """The network at one size.

    Weights are laid out (height, width, input, output) for convolutions and (input, output) for
    the dense layer; images are (height, width, channels).
    """

    preset: str
    image_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    blocks_per_stage: int
    classes: int
    thresholds: Mapping[str, float]
    name: str = "vision"
    feature: str = "image"
    label: str = field(default="label")

    @property
    def elements_per_example(self) -> int:
        """Elements of one image, stored flattened."""
        return math.prod(self.image_shape)

    def check_dataset(self, manifest: Manifest) -> None:
        """Refuse a dataset that cannot feed this network."""
        for name, dtype in ((self.feature, "float32"), (self.label, "int64")):
            if manifest.feature(name).dtype != dtype:
                raise InputError(
                    f"workload.preset: {self.title} takes '{name}' as {dtype}; "
                    f"the dataset has {manifest.feature(name).dtype}"
                )
        if manifest.label != self.label:
            raise InputError(
                f"workload.preset: {self.title} predicts '{self.label}'; "
                f"the dataset's label is '{manifest.label}'"
            )
        shape = manifest.feature(self.feature).shape
        if shape != self.image_shape or manifest.classes != self.classes:
            raise InputError(
                f"workload.preset: {self.title} takes images of {self.image_shape} in "
                f"{self.classes} classes; the dataset has {shape} in {manifest.classes}"
            )

    def blocks(self) -> Iterator[Block]:
        """The residual blocks from the stem to the head."""
        width = self.widths[0]
        for stage, stage_width in enumerate(self.widths, start=1):
            for number in range(1, self.blocks_per_stage + 1):
                stride = 2 if stage > 1 and number == 1 else 1
                yield Block(f"stage{stage}_block{number}", width, stage_width, stride)
                width = stage_width

    def initial_weights(self, seed: int) -> Weights:
        """He-normal kernels and zero biases.

        Each block's last kernel is divided by the square root of the number of blocks. Every
        parameter has a generator of its own, so that adding one moves no other.
        """
        blocks = list(self.blocks())
        residual_scale = 1 / math.sqrt(len(blocks))
        weights: Weights = {}

        def add(name: str, shape: tuple[int, ...], scale: float = 1.0) -> None:
            generator = np.random.default_rng([seed, *name.encode()])
            deviation = scale * math.sqrt(2 / math.prod(shape[:-1]))
            values = generator.standard_normal(shape) * deviation
            weights[f"{name}/kernel"] = values.astype(np.float32)
            weights[f"{name}/bias"] = np.zeros(shape[-1], np.float32)

        add("stem", (3, 3, self.image_shape[2], self.widths[0]))
        for block in blocks:
            add(f"{block.name}_conv1", (3, 3, block.input_width, block.width))
            add(f"{block.name}_conv2", (3, 3, block.width, block.width), residual_scale)
            if block.projects:
                add(f"{block.name}_shortcut", (1, 1, block.input_width, block.width))
        add("head", (self.widths[-1], self.classes))
        return weights

    def forward_flops_per_example(self) -> int:
        """Convolutions and the dense layer, 2 x kernel x input x output x pixels each.

        Activations, biases and additions are left out, as is customary.
        """
        height, width, channels = self.image_shape
        flops = 2 * 9 * channels * self.widths[0] * height * width
        for block in self.blocks():
            height, width = -(-height // block.stride), -(-width // block.stride)
            taps = 9 * block.input_width + 9 * block.width
            taps += block.input_width if block.projects else 0
            flops += 2 * taps * block.width * height * width
        return flops + 2 * self.widths[-1] * self.classes


PRESETS = {
    "tiny": Vision(
        preset="tiny",
        image_shape=(8, 8, 1),
        widths=(16, 32),
        blocks_per_stage=1,
        classes=10,
        thresholds={"eval_accuracy": 0.95},
    ),
}
