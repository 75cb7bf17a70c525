"""The ``data`` section of the configuration: sources, splits, sharding, runner and reader."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

__all__ = [
    "CsvConfig",
    "DataConfig",
    "ImagesConfig",
    "RunnerConfig",
    "Section",
    "SplitsConfig",
    "SyntheticConfig",
    "TextConfig",
]

Share = Annotated[float, Field(gt=0, lt=1)]
ShareOrAll = Annotated[float, Field(ge=0, le=1)]
SourceName = Literal["digits", "synthetic", "csv", "parquet", "tfrecord", "images", "text"]
ColumnType = Literal["float32", "int64", "string"]


class Section(BaseModel):
    """A part of the configuration: immutable, and closed to keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class SplitsConfig(Section):
    """Shares of the examples; they must add up to one."""

    train: Share = 0.8
    eval: Share = 0.2

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if abs(self.train + self.eval - 1) > 1e-9:
            raise ValueError(f"train + eval must be 1, not {self.train + self.eval:g}")
        return self


class SyntheticConfig(Section):
    """What ``source: synthetic`` makes up."""

    kind: Literal["vision", "text", "tabular"] = "vision"
    """``vision``: noisy images of ten prototypes. ``text``: tokens of a Markov chain.
    ``tabular``: a click log whose clicks follow a logistic model."""
    rows: PositiveInt = 10_000
    """Examples over all splits."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the signal and every example; the first rows stay when more are asked for."""


class CsvConfig(Section):
    """How ``source: csv`` is read."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """The one character between values."""
    missing: list[str] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"]
    """Values that stand for a missing one."""
    newlines_in_values: bool = False
    """Whether quoted values may hold line breaks; a file is then read by one worker."""


class ImagesConfig(Section):
    """What ``source: images`` makes of each file."""

    height: PositiveInt = 32
    """Pixels; images are resized to it."""
    width: PositiveInt = 32
    """Pixels; images are resized to it."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: red, green, blue."""
    max_unreadable_share: ShareOrAll = 0.0
    """Greatest share of images that may be unreadable before the whole is refused."""


class TextConfig(Section):
    """How ``source: text`` is cut into examples."""

    tokenizer: Literal["bytes", "bpe"] = "bytes"
    """``bytes``: one token per byte of UTF-8. ``bpe``: byte-level byte-pair encoding, trained
    on the source."""
    vocabulary_size: Annotated[int, Field(ge=257)] = 4096
    """Tokens of a trained vocabulary."""
    sequence_length: Annotated[int, Field(ge=2)] = 128
    """Tokens of one example; it stores one more, since each token predicts the next."""


class RunnerConfig(Section):
    """Where ingestion runs. It never changes what is written."""

    name: Literal["direct", "dask", "flink", "spark", "dataflow"] = "direct"
    """``direct``: in this process. ``dask``: processes of this machine, or a cluster. The others
    take a cluster, named by ``options``."""
    workers: PositiveInt | None = None
    """Threads (``direct``) or local processes (``dask``); by default this machine's cores."""
    options: list[str] = []
    """Apache Beam's own pipeline options, such as ``--flink_master=HOST:8081``."""


class DataConfig(Section):
    """Where examples come from and how they reach the trainer."""

    source: SourceName = "digits"
    """``digits``: the 1,797 handwritten 8x8 images that scikit-learn carries. ``synthetic``: made
    up from a seed. ``csv``, ``parquet``, ``tfrecord``, ``images``, ``text``: read from ``path``,
    where ``text`` has a default."""
    path: str | list[str] | None = None
    """Files: a path, glob or URL (``https://``, ``s3://``, ``gs://``), or a list of them.
    ``images`` takes a folder with a folder per class, or a CSV file of ``path,label``; ``text``
    without one takes the topics of Python's own help, which every installation carries."""
    label: str | None = None
    """Column to predict; ``digits``, ``synthetic``, ``images`` and ``text`` know theirs."""
    id: str | None = None
    """Column that identifies an example and so decides its split; by default ``example_id`` if
    there is one, else the row's place in its file."""
    types: dict[str, ColumnType] = {}
    """Column -> type, where what its first rows suggest is wrong."""
    synthetic: SyntheticConfig = SyntheticConfig()
    csv: CsvConfig = CsvConfig()
    images: ImagesConfig = ImagesConfig()
    text: TextConfig = TextConfig()
    output: Path | None = None
    """Folder of the ingested dataset; by default ``data`` under the config's ``output``."""
    splits: SplitsConfig = SplitsConfig()
    rows_per_shard: PositiveInt = 262_144
    """Most examples in one Parquet shard."""
    expected: Path | None = None
    """File with the schema that the data must meet; by default the data's own, inferred."""
    validation: Literal["strict", "warn"] = "strict"
    """What anomalies do: ``strict`` refuses the dataset, ``warn`` records them in its manifest."""
    runner: RunnerConfig = RunnerConfig()
    reader: Literal["shared", "native"] = "shared"
    """``shared``: both frameworks consume Tandem's own batch stream, which isolates the trainer.
    ``native``: tf.data over transformed TFRecords, DataLoader over transformed Parquet."""
    shuffle_buffer: PositiveInt = 262_144
    """Examples that the shared reader shuffles at a time; a larger split is shuffled in blocks
    first, so that memory stays bounded."""

    @model_validator(mode="after")
    def _names_its_files(self) -> Self:
        embedded = self.source in ("digits", "synthetic")
        if embedded and self.path is not None:
            raise ValueError(f"source '{self.source}' reads no files; leave path out")
        has_default = self.source == "text" and self.path is None
        if not embedded and not has_default and not self.path:
            raise ValueError(f"source '{self.source}' needs a path: a file, glob or URL")
        return self

    def decisive(self) -> dict[str, Any]:
        """The fields that decide a dataset's content, as plain values."""
        fields = {"source", "path", "label", "id", "types", "splits", "rows_per_shard"}
        if self.source in ("synthetic", "csv", "images", "text"):
            fields.add(self.source)
        return self.model_dump(mode="json", include=fields | {"expected", "validation"})
