"""The ``workload`` section of the configuration: which model, at which size."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipelines.data_config import Section

__all__ = [
    "LabelRule",
    "TabularWorkloadConfig",
    "TextWorkloadConfig",
    "VisionWorkloadConfig",
    "WorkloadConfig",
    "WorkloadName",
]

WorkloadName = Literal["vision", "text", "tabular"]

PRESETS: Mapping[WorkloadName, tuple[str, ...]] = {
    "vision": ("tiny", "small", "resnet18", "resnet50"),
    "text": ("tiny", "small", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
    "tabular": ("tiny", "dlrm"),
}


class VisionWorkloadConfig(Section):
    """What to change of a ``vision`` preset; null leaves it as it is."""

    widths: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Channels of each stage; of a bottleneck block, those that leave it."""
    blocks: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Residual blocks of each stage; as many as ``widths``."""
    block: Literal["basic", "bottleneck"] | None = None
    """``basic``: two 3x3 convolutions. ``bottleneck``: 1x1, 3x3, 1x1."""
    normalization: Literal["none", "batch", "group"] | None = None
    """``batch`` is synchronised over the workers."""
    activation: Literal["gelu", "relu"] | None = None
    """GELU is smooth, which keeps two implementations together for longer."""


class TextWorkloadConfig(Section):
    """What to change of a ``text`` preset; null leaves it as it is."""

    layers: PositiveInt | None = None
    """Transformer blocks."""
    width: PositiveInt | None = None
    """Elements of a token's representation; a multiple of ``heads``."""
    heads: PositiveInt | None = None
    """Attention heads."""


class LabelRule(Section):
    """A label that is worked out: whether the label's column exceeds a share of another one."""

    column: str
    """The column to set against."""
    share: PositiveFloat
    """Above this share of it, the example is positive (TFX's taxi example: tips over 0.2 fares)."""


class TabularWorkloadConfig(Section):
    """What to change of a ``tabular`` preset, and which columns it reads."""

    numeric: list[str] | None = None
    """Columns taken as numbers; null: every number that is not listed as ``categorical``."""
    categorical: list[str] | None = None
    """Columns that are embedded; null: every string."""
    ignored: list[str] = []
    """Columns that are left out."""
    positive_over: LabelRule | None = None
    """How the label is worked out; null: the label's column holds 0 and 1."""
    hash_buckets: PositiveInt | None = None
    """Rows of the embedding of a column without vocabulary."""
    embedding_width: PositiveInt | None = None
    """Elements of every embedding, and of the bottom network's output."""
    bottom: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Widths of the layers that the numbers go through, before the last one."""
    top: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Widths of the layers after the interactions, before the one output."""


class WorkloadConfig(Section):
    """What is trained."""

    name: WorkloadName = "vision"
    """Which model family: ``vision`` is a residual CNN, ``text`` a decoder-only transformer,
    ``tabular`` embeddings, interactions and dense layers (DLRM)."""
    preset: str = "tiny"
    """The size of the model, by name."""
    vision: VisionWorkloadConfig = VisionWorkloadConfig()
    text: TextWorkloadConfig = TextWorkloadConfig()
    tabular: TabularWorkloadConfig = TabularWorkloadConfig()
    thresholds: dict[str, float] = {}
    """Metric -> what a model must reach to be blessed (at least, or at most where less is better);
    overrides the workload's own."""

    @model_validator(mode="after")
    def _knows_the_preset(self) -> Self:
        if self.preset not in PRESETS[self.name]:
            raise ValueError(
                f"preset '{self.preset}' is none of {self.name}'s: {', '.join(PRESETS[self.name])}"
            )
        return self
