"""Tables whose columns the user chose: their names, types and ids, checked and converted."""

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data_config import ColumnType, DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import ID
from pipelines.secrets import shown

__all__ = [
    "check_columns",
    "convert",
    "describe",
    "features_of",
    "first_failing",
    "ids_of",
    "number_rows",
    "scalar_type",
]

Values: TypeAlias = pa.Array | pa.ChunkedArray

_MOST_LISTED = 30
_ARROW_TYPES = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}


def check_columns(config: DataConfig, names: Sequence[str], where: str) -> str | None:
    """The column that identifies an example, or None if ids must be made up.

    Args:
        config: whose ``label``, ``id`` and ``types`` must be among the columns.
        names: the columns.
        where: the file they are from.

    Raises:
        InputError: naming the field of the configuration, or the column, that is wrong.
    """
    if "" in names:
        raise InputError(f"{where}: column {names.index('') + 1} has no name; give it one")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{where}: column {twice!r} appears twice; rename one of them")
    wanted: dict[str, str | None] = {"data.label": config.label, "data.id": config.id}
    wanted |= {f"data.types.{name}": name for name in config.types}
    for field, column in wanted.items():
        if column is not None and column not in names:
            raise InputError(f"{field}: no column {column!r} in {where}; {_choice(column, names)}")
    if config.types.get(ID, "string") != "string":
        raise InputError(f"data.types.{ID}: {ID} is always a string; leave it out")
    if config.id not in (None, ID) and ID in names:
        raise InputError(
            f"data.id: {where} has a column {ID!r}, which would be lost; "
            "rename it, or leave data.id out"
        )
    return config.id or (ID if ID in names else None)


def features_of(features: Sequence[Feature]) -> tuple[Feature, ...]:
    """A source's columns from a table's: ``example_id`` first, the others as they come."""
    others = (feature for feature in features if feature.name != ID)
    return (Feature(name=ID, dtype="string"), *others)


def scalar_type(arrow: pa.DataType) -> ColumnType | None:
    """The type that a column of single values is stored as; None if there is none for it."""
    types = pa.types
    if types.is_dictionary(arrow):
        return scalar_type(arrow.value_type)
    if types.is_floating(arrow):
        return "float32"
    if any(
        is_type(arrow)
        for is_type in (types.is_integer, types.is_boolean, types.is_date, types.is_timestamp)
    ):
        return "int64"
    if any(
        is_type(arrow)
        for is_type in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_null,
            types.is_time,
        )
    ):
        return "string"
    return None


def convert(column: Values, dtype: ColumnType) -> Values:
    """A column of single values as ``dtype``; missing ones stay missing.

    Booleans become 0 and 1, dates and times whole seconds since 1970 in UTC, rounded down.

    Raises:
        pyarrow.ArrowInvalid: if a value does not fit.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        # Without the zone, which is for display: the numbers count from 1970 in UTC anyway.
        column = column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
        column = pc.floor_temporal(column, unit="second").cast(pa.timestamp("s"))
        if dtype != "string":
            column = column.cast(pa.int64())
    # To float32, values are rounded; to int64, they must fit exactly.
    return column.cast(_ARROW_TYPES[dtype], safe=dtype != "float32")


def ids_of(column: Values) -> Values:
    """The ids that a column holds, as text; missing ones stay missing."""
    return convert(column, "string")


def number_rows(prefix: str, first: int, count: int) -> pa.Array:
    """``count`` ids: ``prefix``, ``+``, and a number from ``first`` on."""
    numbers = pa.array(np.arange(first, first + count)).cast(pa.string())
    return pc.binary_join_element_wise(f"{prefix}+", numbers, "")


def first_failing(fails: Callable[[int, int], bool], count: int) -> int:
    """The first of ``count`` rows that fails, found by halving.

    Args:
        fails: whether a row of [start, stop) fails.
        count: how many rows there are; at least one must fail.
    """
    start, stop = 0, count
    while stop - start > 1:
        middle = (start + stop) // 2
        if fails(start, middle):
            stop = middle
        else:
            start = middle
    return start


def describe(config: DataConfig, files: Sequence[SourceFile]) -> dict[str, str]:
    """What is read, for people."""
    size = float(sum(file.size for file in files))
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    paths = [config.path] if isinstance(config.path, str) else config.path or []
    plural = "" if len(files) == 1 else "s"
    return {
        "name": config.source,
        "files": f"{len(files):,} file{plural}, {size:.0f} {units[0]}",
        "path": ", ".join(shown(path) for path in paths),
    }


def _choice(name: str, names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MOST_LISTED]) + (", ..." if len(names) > _MOST_LISTED else "")
    close = get_close_matches(name, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"it has: {listed}"
