"""Validation: do the rows of a dataset agree with its manifest?

The PyTorch DAG's twin of TFX's StatisticsGen and ExampleValidator. Checks what can be said of
every workload: columns, types, missing and non-finite values, labels outside the classes.
"""

import math
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Manifest, Split

__all__ = ["find_anomalies"]


def find_anomalies(dataset: Dataset) -> list[str]:
    """One line per anomaly, naming split, column and count; empty if there are none.

    Raises:
        InputError: naming the first shard that is missing or altered.
    """
    splits: tuple[Split, ...] = ("train", "eval")
    return [
        f"{split}: {anomaly}"
        for split in splits
        for anomaly in _anomalies(dataset.table(split), dataset.manifest)
    ]


def _anomalies(table: pa.Table, manifest: Manifest) -> Iterator[str]:
    # On the table itself: what does not fit the manifest need not fit an array either.
    for feature in manifest.features:
        name = feature.name
        if name not in table.column_names:
            yield f"{name}: the column is missing"
            continue
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            if column.type.list_size != math.prod(feature.shape):
                yield f"{name}: holds {column.type.list_size} elements, not {feature.shape}"
                continue
            column = column.flatten()
        stored = {"float": "float32", "double": "float64"}.get(str(column.type), str(column.type))
        if stored != feature.dtype:
            yield f"{name}: holds {stored}, the manifest says {feature.dtype}"
            continue
        unusable = column.null_count
        values = column.drop_null()
        if feature.dtype == "string":
            if unusable:
                yield f"{name}: {unusable} values are missing"
            continue
        array = values.to_numpy(zero_copy_only=False)
        unusable += int((~np.isfinite(array)).sum())
        if unusable:
            yield f"{name}: {unusable} values are missing or not finite"
        if name == manifest.label:
            outside = int(((array < 0) | (array >= manifest.classes)).sum())
            if outside:
                yield f"{name}: {outside} values are outside the {manifest.classes} classes"
