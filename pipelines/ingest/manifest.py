"""The manifest: what a dataset holds, how it was made, and how to tell that it is unaltered."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pipelines.errors import InputError
from pipelines.ingest.schema import Feature, Record, Share
from pipelines.ingest.statistics import ColumnStatistics

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "Shard",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION: Literal[2] = 2

Split = Literal["train", "eval"]


class Shard(Record):
    """One Parquet file."""

    path: str
    """Relative to the dataset's folder."""
    split: Split
    rows: int
    sha256: str
    """Of the file."""
    content_sha256: str
    """Of the rows alone, which does not depend on the Parquet writer's version."""


class Manifest(Record):
    """What a dataset holds.

    The fingerprint depends on the content only, not on when, where or by how many workers it was
    written.
    """

    format_version: Literal[2] = FORMAT_VERSION
    source: dict[str, str]
    """What the rows were read from, for people and for the reuse check."""
    request: str
    """SHA-256 of the settings that decide the content; equal means: reuse."""
    source_version: str
    """SHA-256 over the source's files, their sizes and times; equal means: reuse."""
    split_shares: dict[Split, float]
    features: list[Feature]
    """The columns with their contract: the schema that was asked for, or the one inferred."""
    label: str | None
    classes: int | None
    """How many values the label has; None if it has no few."""
    statistics: dict[Split, dict[str, ColumnStatistics]]
    """Split -> column -> statistics."""
    max_label_drift: Share | None = None
    """Greatest difference that a label's share of the examples may have between the splits."""
    anomalies: list[str] = []
    """Where the data breaks the contract, one line each; ``validation: strict`` allows none."""
    skipped: list[str] = []
    """Examples left out because they could not be read, one line each; the first thousand."""
    skipped_count: int = 0
    files: dict[str, str] = {}
    """What belongs to the dataset besides its shards (a tokenizer): name -> SHA-256."""
    shards: list[Shard]
    fingerprint: str

    def rows(self, split: Split) -> int:
        """Examples in a split."""
        return sum(shard.rows for shard in self.shards if shard.split == split)

    def feature(self, name: str) -> Feature:
        """The column of that name.

        Raises:
            InputError: if there is none, naming those there are.
        """
        for feature in self.features:
            if feature.name == name:
                return feature
        known = ", ".join(feature.name for feature in self.features)
        raise InputError(f"{MANIFEST_NAME}: no column '{name}'; it has: {known}")


def fingerprint(
    features: Sequence[Feature],
    label: str | None,
    split_shares: Mapping[Split, float],
    files: Mapping[str, str],
    shards: Sequence[Shard],
) -> str:
    """SHA-256 over columns, split rule and the content of every shard."""
    content = {
        "columns": [[feature.name, feature.dtype, feature.shape] for feature in features],
        "label": label,
        "split_shares": dict(split_shares),
        "files": dict(files),
        "shards": [[shard.path, shard.rows, shard.content_sha256] for shard in shards],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a dataset's manifest.

    Raises:
        InputError: if the folder holds no readable dataset.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such dataset; make it with `tandem ingest`") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(str(part) for part in detail["loc"]) or "file"
        raise InputError(
            f"{path}: {field}: {detail['msg']}; write it anew with `tandem ingest --force`"
        ) from None
