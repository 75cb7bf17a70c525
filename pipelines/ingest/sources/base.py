"""What a source is: columns known beforehand, and fragments that any worker can read alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.ingest.schema import Feature

__all__ = ["ID", "Fragment", "Skip", "Source", "arrow_type"]

ID = "example_id"
"""The column that every dataset begins with: a string, unique, which decides the split."""

Skip = Callable[[str], None]
"""Called with one line on an example that was left out: what it was, and why."""

_ARROW_TYPES = {
    "float32": pa.float32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "string": pa.string(),
}


@dataclass(frozen=True)
class Fragment:
    """A part of a source, small enough to hold in memory some times over."""

    number: int
    """Its place in the source, from 0."""
    name: str
    """For people: the file, and the part of it."""
    place: tuple[Any, ...]
    """For the source: where to find it."""


class Source(ABC):
    """An opened source. It travels to the workers, so it must pickle.

    How it is cut into fragments, and what a fragment holds, depend on the source and the
    configuration alone: never on the runner or on how many workers there are.
    """

    features: tuple[Feature, ...]
    """The columns; ``example_id`` first."""
    label: str | None
    """The column to predict; None if the examples are their own (text)."""
    classes: int | None = None
    """How many values the label has, where the source knows it beforehand."""
    description: dict[str, str]
    """What was read, for people; ``name`` is the source's."""
    ids_are_unique: bool = False
    """Whether ids are made up so that no two examples can share one."""
    files: dict[str, bytes] = {}
    """What belongs to the dataset besides its shards, by name (a trained tokenizer)."""

    @abstractmethod
    def fragments(self) -> list[Fragment]:
        """The whole source in parts, in order."""

    @abstractmethod
    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The fragment's examples with the columns of ``schema``, in bounded pieces.

        Raises:
            InputError: naming the file, and the row or column, that cannot be read.
        """

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow stores them: shapes flattened, in row-major order."""
        return pa.schema([(feature.name, arrow_type(feature)) for feature in self.features])


def arrow_type(feature: Feature) -> pa.DataType:
    """How a column is stored: a scalar, or a list of fixed length."""
    scalar = _ARROW_TYPES[feature.dtype]
    return pa.list_(scalar, feature.elements) if feature.shape else scalar
