"""The shards' rows one by one, as rivals that store samples take them."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

__all__ = ["column_types", "samples"]

_KINDS = {pa.float32(): "float32", pa.int64(): "int64", pa.string(): "string"}


def column_types(shard: str, columns: list[str]) -> dict[str, str]:
    """Column -> ``float32``, ``int64`` or ``string``."""
    schema = pq.read_schema(shard)
    return {name: _KINDS[schema.field(name).type] for name in columns}


def samples(shard: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """A sample per row, of NumPy scalars and strings; missing values are NaN and ""."""
    table = pq.read_table(shard, columns=columns)
    values = [_filled(column) for column in table.columns]
    return (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


def _filled(column: pa.ChunkedArray) -> Any:
    if pa.types.is_string(column.type):
        return pc.fill_null(column, "").to_pylist()
    return column.to_numpy()
