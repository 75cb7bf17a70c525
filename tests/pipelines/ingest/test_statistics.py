import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.schema import Feature
from pipelines.ingest.statistics import MAX_VALUES, ColumnStatistics, column_statistics, merge

X = Feature(name="x", dtype="float32", min=-10, max=10)
N = Feature(name="n", dtype="int64", values=(-1, 0, 1))
S = Feature(name="s", dtype="string", values=("a", "b"))

FLOATS = st.none() | st.floats(width=32)
INTS = st.none() | st.integers(-(2**40), 2**40) | st.integers(-2, 2)
STRINGS = st.none() | st.sampled_from(["a", "b", "c", "", "ä"])


def array(values: list[Any], feature: Feature) -> pa.Array:
    kinds = {"float32": pa.float32(), "int64": pa.int64(), "uint8": pa.uint8()}
    return pa.array(values, kinds.get(feature.dtype, pa.string()))


@st.composite
def in_pieces(draw: st.DrawFn, elements: st.SearchStrategy[Any]) -> list[list[Any]]:
    return draw(st.lists(st.lists(elements, max_size=20), min_size=1, max_size=8))


@st.composite
def grouped(draw: st.DrawFn, parts: list[ColumnStatistics]) -> ColumnStatistics:
    """The parts merged in some grouping that keeps their order."""
    if len(parts) == 1:
        return parts[0]
    cut = draw(st.integers(1, len(parts) - 1))
    return merge([draw(grouped(parts[:cut])), draw(grouped(parts[cut:]))])


def merged(data: st.DataObject, pieces: list[list[Any]], feature: Feature) -> ColumnStatistics:
    parts = [column_statistics(array(piece, feature), feature) for piece in pieces]
    return data.draw(grouped(parts))


def check_moments(found: ColumnStatistics, numbers: np.ndarray) -> None:
    """To 1e-12 of the largest number."""
    if not len(numbers):
        assert (found.mean, found.std, found.min, found.max) == (None, None, None, None)
        return
    tolerance = 1e-12 * max(abs(numbers).max(), 1e-300)
    assert found.mean == pytest.approx(numbers.mean(), rel=0, abs=tolerance)
    assert found.std == pytest.approx(numbers.std(), rel=0, abs=tolerance)
    assert (found.min, found.max) == (numbers.min(), numbers.max())


@settings(deadline=None)
@given(data=st.data(), pieces=in_pieces(FLOATS))
def test_statistics_of_floats_in_any_grouping_are_those_of_the_whole(
    data: st.DataObject, pieces: list[list[float | None]]
) -> None:
    found = merged(data, pieces, X)

    values = [value for piece in pieces for value in piece]
    present = np.array([value for value in values if value is not None], np.float64)
    numbers = present[np.isfinite(present)]
    assert found.examples == len(values)
    assert found.missing == len(values) - len(present)
    assert found.not_finite == len(present) - len(numbers)
    assert found.elements == len(numbers)
    assert found.unknown == np.count_nonzero(abs(numbers) > 10)
    assert found.values is None
    check_moments(found, numbers)


@settings(deadline=None)
@given(data=st.data(), pieces=in_pieces(INTS))
def test_statistics_of_integers_in_any_grouping_are_those_of_the_whole(
    data: st.DataObject, pieces: list[list[int | None]]
) -> None:
    found = merged(data, pieces, N)

    values = [value for piece in pieces for value in piece]
    present = [value for value in values if value is not None]
    counts = Counter(map(str, present))
    assert found.missing == len(values) - len(present)
    assert found.elements == len(present)
    assert found.unknown == sum(abs(value) > 1 for value in present)
    assert list((found.values or {}).items()) == sorted(counts.items())
    check_moments(found, np.array(present, np.float64))


@settings(deadline=None)
@given(data=st.data(), pieces=in_pieces(STRINGS))
def test_statistics_of_strings_in_any_grouping_are_those_of_the_whole(
    data: st.DataObject, pieces: list[list[str | None]]
) -> None:
    found = merged(data, pieces, S)

    values = [value for piece in pieces for value in piece]
    present = [value for value in values if value is not None]
    assert found == ColumnStatistics(
        examples=len(values),
        missing=len(values) - len(present),
        unknown=sum(value not in ("a", "b") for value in present),
        elements=len(present),
        values=dict(Counter(present)),
    )
    assert list(found.values or {}) == sorted(set(present))


def test_a_small_spread_about_a_large_mean_survives_merging() -> None:
    values = 1e6 + np.random.default_rng(0).uniform(-1, 1, 10_000)
    stored = pa.array(values, pa.float32())
    feature = Feature(name="x", dtype="float32")

    found = merge(
        [column_statistics(stored[start : start + 7], feature) for start in range(0, 10_000, 7)]
    )

    exact = stored.to_numpy().astype(np.float64)
    assert found.std == pytest.approx(exact.std(), rel=1e-6)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-12)


def test_a_column_without_a_value_has_no_moments() -> None:
    for feature in (X, N, S):
        empty = column_statistics(array([None] * 3, feature), feature)
        assert empty.missing == empty.examples == 3
        assert empty.elements == empty.unknown == 0
        assert empty.mean is empty.std is empty.min is empty.max is None
    some = column_statistics(array([2.0, 4.0], X), X)
    empty = column_statistics(array([None], X), X)
    assert (
        merge([empty, some])
        == merge([some, empty])
        == some.model_copy(update={"examples": 3, "missing": 1})
    )


def test_arrays_are_counted_by_element_and_their_absence_by_example() -> None:
    feature = Feature(name="image", dtype="float32", shape=(2, 1), max=3)
    elements = pa.array([1, None, 9, 9, 3, math.nan, 4, 2], pa.float32())
    column = pa.FixedSizeListArray.from_arrays(
        elements, 2, mask=pa.array([False, True, False, False])
    )

    found = column_statistics(column, feature)

    assert found == ColumnStatistics(
        examples=4,
        missing=1,
        not_finite=2,
        unknown=1,
        elements=4,
        mean=2.5,
        std=1.25**0.5,
        min=1,
        max=4,
    )
    assert column_statistics(column[1:3], feature) == ColumnStatistics(
        examples=2, missing=1, not_finite=1, elements=1, mean=3, std=0, min=3, max=3
    )


def test_bytes_are_counted_value_by_value_too() -> None:
    feature = Feature(name="label", dtype="uint8", values=(0, 255))

    found = column_statistics(pa.array([0, 255, 7, 0], pa.uint8()), feature)

    assert found.values == {"0": 2, "255": 1, "7": 1}
    assert found.unknown == 1


@pytest.mark.parametrize(
    ("dtype", "bounds", "unknown"),
    [
        ("float32", {"min": 0.1, "max": 0.7}, 2),  # float32's own 0.1 and 0.7 are inside
        ("float32", {"min": 0.2}, 2),
        ("int64", {"max": 0}, 1),
        ("int64", {"min": 0.5}, 4),
        ("uint8", {"min": 0, "max": 0.5}, 1),
    ],
)
def test_bounds_belong_to_the_range(dtype: Any, bounds: dict[str, float], unknown: int) -> None:
    values = [0, 0.1, 0.7, 0.5, 1] if dtype == "float32" else [0, 0, 0, 0, 1]
    feature = Feature(name="x", dtype=dtype, **bounds)

    assert column_statistics(array(values, feature), feature).unknown == unknown


def test_values_are_counted_one_by_one_up_to_a_thousand() -> None:
    feature = Feature(name="n", dtype="int64")
    few = column_statistics(pa.array(range(MAX_VALUES)), feature)
    one_more = column_statistics(pa.array([MAX_VALUES]), feature)

    assert len(few.values or {}) == MAX_VALUES
    assert column_statistics(pa.array(range(MAX_VALUES + 1)), feature).values is None
    assert merge([few, few]).values == dict.fromkeys(sorted(map(str, range(MAX_VALUES))), 2)
    assert merge([few, one_more]).values is None
    assert merge([merge([few, one_more]), few]).values is None
