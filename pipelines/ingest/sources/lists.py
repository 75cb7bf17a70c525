"""Columns of lists: all of one length, with no value missing."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import arrow_type

__all__ = ["fixed_size", "is_list", "list_type"]


def is_list(arrow: pa.DataType) -> bool:
    """Whether a column holds lists."""
    types = pa.types
    return bool(
        types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow)
    )


def list_type(arrow: pa.DataType) -> Literal["float32", "int64", "uint8"] | None:
    """The type that the numbers of lists are stored as; None if they are not numbers."""
    values = arrow.value_type
    if pa.types.is_floating(values):
        return "float32"
    if values == pa.uint8():
        return "uint8"
    return "int64" if pa.types.is_integer(values) or pa.types.is_boolean(values) else None


def fixed_size(column: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray:
    """Lists as ``feature`` stores them, flattened to [elements].

    Raises:
        pyarrow.ArrowInvalid: if a list or a number is missing, too long, too short or too large.
    """
    if column.null_count:
        raise pa.ArrowInvalid("a list is missing")
    lengths = pc.list_value_length(column)
    if len(column) and pc.any(pc.not_equal(lengths, feature.elements)).as_py():
        raise pa.ArrowInvalid("lists differ in length")
    target = arrow_type(feature)
    safe = feature.dtype != "float32"
    values = [chunk.flatten().cast(target.value_type, safe=safe) for chunk in column.chunks]
    if any(chunk.null_count for chunk in values):
        raise pa.ArrowInvalid("a number is missing")
    return pa.chunked_array(
        [pa.FixedSizeListArray.from_arrays(chunk, feature.elements) for chunk in values], target
    )
