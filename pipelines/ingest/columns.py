"""A dataset's columns as NumPy arrays: as stored for people, encoded for models."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.splits import hash_ids

__all__ = ["MISSING", "Columns", "encode", "encoded_dtype", "to_numpy"]

Columns = dict[str, npt.NDArray[np.generic]]
"""Column name -> array whose first axis is the example."""

MISSING = -1
"""The code of a string that is missing, or outside its column's vocabulary."""


def to_numpy(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """A column as it is stored: (examples, *shape); strings as objects, missing numbers as NaN."""
    array = column.combine_chunks()
    if pa.types.is_fixed_size_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(array), *shape)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def encoded_dtype(manifest: Manifest, feature: Feature) -> npt.DTypeLike:
    """The type in which ``encode`` delivers a column, for every shard alike."""
    if feature.dtype == "string":
        return np.int32 if feature.values is not None else np.int64
    if feature.dtype == "int64" and _may_miss(manifest, feature):
        return np.float64
    return np.dtype(feature.dtype)


def encode(
    column: pa.ChunkedArray, manifest: Manifest, feature: Feature
) -> npt.NDArray[np.generic]:
    """A column as models take it, (examples, *shape).

    Numbers stay what they are; where one is missing it is NaN, for which an integer column that
    misses any becomes float64. A string becomes its place in the column's sorted vocabulary
    (int32), or, if the schema names none, its XXH3-64 hash (int64): hashed and looked-up
    embeddings need no more. A string that is missing or unknown is -1.
    """
    if feature.dtype != "string":
        values = to_numpy(column, feature.shape)
        return values.astype(encoded_dtype(manifest, feature), copy=False)
    array = column.combine_chunks()
    if feature.values is not None:
        found = pc.index_in(array, value_set=pa.array(feature.values, pa.string()))
        return np.asarray(pc.fill_null(found, MISSING).to_numpy(zero_copy_only=False))
    distinct = array.dictionary_encode()
    hashes = np.append(hash_ids(distinct.dictionary).view(np.int64), MISSING)
    places = pc.fill_null(distinct.indices, len(hashes) - 1).to_numpy(zero_copy_only=False)
    return np.asarray(hashes[places])


def _may_miss(manifest: Manifest, feature: Feature) -> bool:
    return any(columns[feature.name].missing for columns in manifest.statistics.values())
