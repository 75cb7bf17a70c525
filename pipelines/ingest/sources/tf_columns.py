"""From tf.train.Examples to Arrow columns: which columns there are, and gathering their values."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.data_config import ColumnType
from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.columns import convert, first_failing
from pipelines.ingest.sources.tf_example import parse_example, read_records
from pipelines.secrets import shown

__all__ = ["Column", "Gatherer", "gather", "infer_columns", "retyped"]

SAMPLE_RECORDS = 1_000
SAMPLE_BYTES = 32 << 20

_STORED = {"float_list": pa.float32(), "int64_list": pa.int64(), "bytes_list": pa.binary()}
_DTYPES: dict[str, ColumnType] = {
    "float_list": "float32",
    "int64_list": "int64",
    "bytes_list": "string",
}
_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Column:
    """A feature of the records, and the column that it becomes."""

    name: str
    kind: str
    """How the records hold it: ``float_list``, ``int64_list`` or ``bytes_list``."""
    elements: int
    """Values in every record: 1 makes a scalar; 0 until one is found."""
    dtype: ColumnType

    @property
    def is_list(self) -> bool:
        """Whether every record has several values."""
        return self.elements > 1

    @property
    def feature(self) -> Feature:
        """The dataset's column."""
        shape = (self.elements,) if self.is_list else ()
        return Feature(name=self.name, dtype=self.dtype, shape=shape)


def infer_columns(url: str) -> list[Column]:
    """The columns of a file, sorted by name, as its first records have them.

    Raises:
        InputError: if there is no record, or a feature cannot be a column.
    """
    found: dict[str, Column] = {}
    records = 0
    for records, data in enumerate(_sample(url), start=1):
        example = parse_example(data, f"{shown(url)}: record {records}")
        if example.feature_lists:
            raise InputError(
                f"{shown(url)}: record {records} is a tf.train.SequenceExample, which is not "
                "supported; write tf.train.Examples"
            )
        for name, feature in example.features.feature.items():
            kind = feature.WhichOneof("kind") or ""
            elements = len(getattr(feature, kind).value) if kind else 0
            if name not in found or (elements and not found[name].elements):
                found[name] = Column(name, kind, elements, _DTYPES.get(kind, "string"))
    if not records:
        raise InputError(f"{shown(url)}: holds no record; leave it out of data.path")
    if not found:
        raise InputError(f"{shown(url)}: its records have no features; leave it out of data.path")
    for column in found.values():
        if column.is_list and column.kind == "bytes_list":
            raise InputError(
                f"{shown(url)}: '{column.name}' is a list of {column.elements} strings, which is "
                "not supported; write one feature for each, or numbers"
            )
    return [found[name] for name in sorted(found)]


def retyped(column: Column, types: Mapping[str, ColumnType], url: str) -> Column:
    """The column with the type that ``types`` (``data.types``) wants for it, if any.

    Raises:
        InputError: if it is a list that cannot have it, or its type is known from nowhere.
    """
    name, dtype = column.name, types.get(column.name)
    if not column.elements:
        if dtype is None:
            raise InputError(
                f"{shown(url)}: '{name}' has no value in the first records, so its type is not "
                f"known; set data.types.{name}"
            )
        return Column(name, _KINDS[dtype], 1, dtype)
    if column.is_list and dtype == "string":
        raise InputError(
            f"data.types.{name}: '{name}' is a list of {column.elements} numbers in {shown(url)}, "
            "so it cannot be a string"
        )
    return replace(column, dtype=dtype or column.dtype)


def gather(data: bytes, columns: list["Gatherer"], where: str) -> None:
    """Add a record's values to all columns; ``where`` names it.

    Raises:
        InputError: if the record does not have the columns' features.
    """
    features = parse_example(data, where).features.feature
    for column in columns:
        column.add(features[column.column.name], where)
    # Asking for a feature that is not there has added it, so any surplus is unknown.
    if len(features) > len(columns):
        known = {column.column.name for column in columns}
        unknown = sorted(set(features) - known)[0]
        raise InputError(
            f"{where}: has a feature '{unknown}', which the first file's first records lack"
        )


class Gatherer:
    """One column's values, gathered record by record."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self._dtype = _STORED[column.kind].to_pandas_dtype()
        self._values: list[Any] = []

    def add(self, feature: Any, where: str) -> None:
        """Take a record's feature; ``where`` names the record."""
        column = self.column
        values = getattr(feature, column.kind).value
        if len(values) != column.elements:
            self._check_missing(feature, where)
            self._values.append(None)
        elif column.is_list:
            self._values.append(np.fromiter(values, self._dtype, column.elements))
        else:
            self._values.append(values[0])

    def _check_missing(self, feature: Any, where: str) -> None:
        name, kind, elements = self.column.name, self.column.kind, self.column.elements
        found_kind = feature.WhichOneof("kind") or kind
        found = len(getattr(feature, found_kind).value)
        if found and found_kind != kind:
            raise InputError(
                f"{where}: '{name}' is a {found_kind}; in the first file it begins as a {kind}"
            )
        if found or self.column.is_list:
            raise InputError(
                f"{where}: '{name}' has {_values(found)} where {elements} "
                f"{'are' if self.column.is_list else 'is'} expected; "
                "write lists padded to one length"
            )

    def to_arrow(self, url: str, first: int) -> pa.Array:
        """The values as the dataset stores them.

        ``url`` and the number of the ``first`` value's record, from 1, are for messages.

        Raises:
            InputError: naming the record whose value is not of the column's type.
        """
        column = self.column
        values = np.concatenate(self._values) if column.is_list else self._values
        array = pa.array(values, _STORED[column.kind])
        if column.kind == "bytes_list":
            reason = "is not UTF-8; encoded bytes (images, tensors) are not supported"
            array = self._converted(array, lambda part: part.cast(pa.string()), reason, url, first)
        reason = f"is no {column.dtype}; set data.types.{column.name} to another type"
        array = self._converted(array, lambda part: convert(part, column.dtype), reason, url, first)
        if column.is_list:
            return pa.FixedSizeListArray.from_arrays(array, column.elements)
        return array

    def _converted(
        self,
        array: pa.Array,
        how: Callable[[pa.Array], pa.Array],
        reason: str,
        url: str,
        first: int,
    ) -> pa.Array:
        try:
            return how(array)
        except pa.ArrowInvalid:
            row = first_failing(lambda start, stop: _fails(how, array[start:stop]), len(array))
            record = first + row // self.column.elements
            message = f"{shown(url)}: record {record}: '{self.column.name}' {reason}"
            raise InputError(message) from None


def _sample(url: str) -> Iterator[bytes]:
    size = 0
    for data in islice(read_records(url), SAMPLE_RECORDS):
        yield data
        size += len(data)
        if size >= SAMPLE_BYTES:
            return


def _fails(how: Callable[[pa.Array], pa.Array], part: pa.Array) -> bool:
    try:
        how(part)
    except pa.ArrowInvalid:
        return True
    return False


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count or 'no'} values"
