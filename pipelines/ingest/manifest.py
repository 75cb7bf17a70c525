"""The manifest: what a dataset holds, how it was made, and how to tell that it is unaltered."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import InputError

__all__ = [
    "MANIFEST_NAME",
    "ColumnStatistics",
    "Feature",
    "Manifest",
    "Shard",
    "read_manifest",
]

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION: Literal[1] = 1

Split = Literal["train", "eval"]


class Record(BaseModel):
    """A part of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Feature(Record):
    """One column of the dataset."""

    name: str
    dtype: Literal["float32", "int64", "string"]
    shape: tuple[int, ...] = ()
    """Shape of one example's value; stored flattened, in row-major order."""


class ColumnStatistics(Record):
    """Statistics of one numeric column over the train split, all its elements together."""

    mean: float
    std: float
    """Population standard deviation."""
    min: float
    max: float


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

    format_version: Literal[1] = FORMAT_VERSION
    source: dict[str, str]
    """What the rows were read from, for people and for the reuse check."""
    request: str
    """SHA-256 of the data section that asked for this dataset; equal means: reuse."""
    split_shares: dict[Split, float]
    features: list[Feature]
    label: str
    classes: int
    statistics: dict[str, ColumnStatistics]
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
    features: list[Feature], label: str, split_shares: dict[Split, float], shards: list[Shard]
) -> str:
    """SHA-256 over schema, split rule and the content of every shard."""
    content = {
        "features": [feature.model_dump(mode="json") for feature in features],
        "label": label,
        "split_shares": split_shares,
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
