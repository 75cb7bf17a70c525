"""Statistics of columns: computed per piece, merged in the pieces' order.

Counts are the same however rows are cut into pieces. Means and variances, merged by the pairwise
update of Chan, Golub and LeVeque (1983), differ by rounding; the order of pieces is fixed, so
they do not depend on which worker computed which.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from pipelines.ingest.schema import Feature

__all__ = ["MAX_VALUES", "ColumnStatistics", "column_statistics", "merge"]

MAX_VALUES = 1_000
"""Distinct values up to which a column's are counted one by one."""


class ColumnStatistics(BaseModel):
    """Statistics of one column over some examples, all elements of its values together."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    examples: int
    missing: int = 0
    """Examples without a value."""
    not_finite: int = 0
    """Elements that are NaN, infinite or, within an array, missing; no figure below counts them."""
    unknown: int = 0
    """Elements outside the vocabulary or the range that the schema names."""
    elements: int = 0
    """Finite elements (of strings: present ones)."""
    mean: float | None = None
    """None for strings, and where there is no element."""
    std: float | None = None
    """Population standard deviation."""
    min: float | None = None
    max: float | None = None
    values: dict[str, int] | None = None
    """Value -> examples, sorted as text, for strings and scalar integers of at most 1,000
    distinct values."""


def column_statistics(column: pa.Array, feature: Feature) -> ColumnStatistics:
    """Of one piece of a column, stored as its feature says."""
    examples, missing = len(column), column.null_count
    counted = not feature.shape and feature.dtype != "float32"
    elements = column.flatten() if feature.shape else column
    present = elements.drop_null()
    values = _value_counts(present) if counted else None
    if feature.dtype == "string":
        return ColumnStatistics(
            examples=examples,
            missing=missing,
            unknown=_outside_vocabulary(present, feature),
            elements=len(present),
            values=values,
        )
    numbers = present.to_numpy(zero_copy_only=False)
    not_finite = elements.null_count if feature.shape else 0
    if numbers.dtype.kind == "f":
        finite = np.isfinite(numbers)
        not_finite += len(numbers) - int(np.count_nonzero(finite))
        numbers = numbers[finite] if not_finite else numbers
    common = {"examples": examples, "missing": missing, "not_finite": not_finite, "values": values}
    if not len(numbers):
        return ColumnStatistics(**common)
    exact = numbers.astype(np.float64)
    return ColumnStatistics(
        **common,
        unknown=_outside_vocabulary(present, feature) + _outside_range(numbers, feature),
        elements=len(exact),
        mean=float(exact.mean()),
        std=float(exact.std()),
        min=float(exact.min()),
        max=float(exact.max()),
    )


def merge(parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
    """One column's statistics over all parts, of which there is at least one, in their order."""
    return reduce(_merge_two, parts)


def _merge_two(one: ColumnStatistics, two: ColumnStatistics) -> ColumnStatistics:
    merged = {
        name: getattr(one, name) + getattr(two, name)
        for name in ("examples", "missing", "not_finite", "unknown", "elements")
    }
    return ColumnStatistics(
        **merged, **_merge_moments(one, two), values=_merge_counts(one.values, two.values)
    )


def _merge_moments(one: ColumnStatistics, two: ColumnStatistics) -> dict[str, float | None]:
    if one.mean is None or two.mean is None:
        known = two if one.mean is None else one
        return known.model_dump(include={"mean", "std", "min", "max"})
    assert one.std is not None and two.std is not None
    assert one.min is not None and two.min is not None
    assert one.max is not None and two.max is not None
    elements = one.elements + two.elements
    delta = two.mean - one.mean
    squares = one.std**2 * one.elements + two.std**2 * two.elements
    squares += delta**2 * one.elements * two.elements / elements
    return {
        "mean": one.mean + delta * two.elements / elements,
        "std": math.sqrt(squares / elements),
        "min": min(one.min, two.min),
        "max": max(one.max, two.max),
    }


def _merge_counts(one: dict[str, int] | None, two: dict[str, int] | None) -> dict[str, int] | None:
    if one is None or two is None:
        return None
    counts = dict(one)
    for value, count in two.items():
        counts[value] = counts.get(value, 0) + count
    return _in_order(counts) if len(counts) <= MAX_VALUES else None


def _value_counts(present: pa.Array) -> dict[str, int] | None:
    counted = present.value_counts()
    if len(counted) > MAX_VALUES:
        return None
    values, counts = counted.field("values").to_pylist(), counted.field("counts").to_pylist()
    return _in_order({str(value): count for value, count in zip(values, counts, strict=True)})


def _in_order(counts: dict[str, int]) -> dict[str, int]:
    """Sorted, so that the manifest does not tell in which pieces and order the rows came."""
    return dict(sorted(counts.items()))


def _outside_vocabulary(present: pa.Array, feature: Feature) -> int:
    if feature.values is None:
        return 0
    known = pc.is_in(present, value_set=pa.array(feature.values, present.type))
    return len(present) - (pc.sum(known).as_py() or 0)


def _outside_range(numbers: npt.NDArray[Any], feature: Feature) -> int:
    if feature.min is None and feature.max is None:
        return 0
    low, high = (
        # A bound such as 0.1 means the number that the column can hold.
        np.float32(bound) if feature.dtype == "float32" else bound
        for bound in (
            -math.inf if feature.min is None else feature.min,
            math.inf if feature.max is None else feature.max,
        )
    )
    return int(np.count_nonzero((numbers < low) | (numbers > high)))
