import datetime
import decimal
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import parquet
from pipelines.ingest.sources.base import Source
from pipelines.ingest.sources.parquet import Parquet


def source(path: Path, **fields: Any) -> Parquet:
    return Parquet(DataConfig(source="parquet", path=str(path), **fields))


def write(path: Path, columns: dict[str, Any], row_group_size: int = 2) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def no_skip(reason: str) -> None:
    raise AssertionError(reason)


def tables(opened: Source) -> list[pa.Table]:
    return [table for part in opened.fragments() for table in opened.read(part, no_skip)]


def rows(opened: Source) -> dict[str, list[Any]]:
    read = tables(opened)
    for table in read:
        assert table.schema == opened.schema
        table.validate(full=True)
    return dict(pa.concat_tables(read).to_pydict())


def refusal(path: Path, **fields: Any) -> str:
    """The message, with the folder left out."""
    with pytest.raises(InputError) as refused:
        tables(source(path, **fields))
    message = str(refused.value)
    assert "\n" not in message
    folder = path if path.is_dir() else path.parent
    return message.replace(f"{folder}/", "")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """100 rows in row groups of 10."""
    columns = {"x": range(100), "y": [f"text {number}" for number in range(100)]}
    return write(tmp_path / "numbers.parquet", columns, row_group_size=10)


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        (pa.array([1, None, -3], pa.int8()), "int64", [1, None, -3]),
        (pa.array([1, 2, 255], pa.uint8()), "int64", [1, 2, 255]),
        (pa.array([1, 2, 3], pa.uint64()), "int64", [1, 2, 3]),
        (pa.array([True, None, False]), "int64", [1, None, 0]),
        (pa.array(np.array([0.5, 1, 2], np.float16)), "float32", [0.5, 1, 2]),
        (pa.array([0.5, None, 1e60]), "float32", [0.5, None, float("inf")]),
        (pa.array([datetime.date(1969, 12, 31)] * 3), "int64", [-86400] * 3),
        (pa.array([-1, 1999, None], pa.timestamp("ms", "UTC")), "int64", [-1, 1, None]),
        (pa.array([0, 1, None], pa.int32()).cast(pa.time32("s")), "string", None),
        (pa.array(["a", None, "c"], pa.large_string()), "string", ["a", None, "c"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), "string", ["a", None, "a"]),
        (pa.array([7, None, 7]).dictionary_encode(), "int64", [7, None, 7]),
        (pa.nulls(3), "string", [None] * 3),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_single_values_are_stored_as_one_of_three_types(
    tmp_path: Path, column: pa.Array, dtype: str, values: list[Any] | None
) -> None:
    opened = source(write(tmp_path / "a.parquet", {"x": column}))

    read = rows(opened)

    assert opened.features[1] == Feature(name="x", dtype=dtype)
    assert read["example_id"] == ["a.parquet:0+0", "a.parquet:0+1", "a.parquet:1+0"]
    assert values is None or read["x"] == values


@pytest.mark.parametrize(
    ("arrow", "dtype"),
    [
        (pa.list_(pa.uint8()), "uint8"),
        (pa.list_(pa.int16()), "int64"),
        (pa.list_(pa.bool_()), "int64"),
        (pa.large_list(pa.float64()), "float32"),
        (pa.list_(pa.float32(), 2), "float32"),
        (pa.list_(pa.uint8(), 2), "uint8"),
    ],
    ids=str,
)
def test_lists_of_one_length_keep_their_shape(
    tmp_path: Path, arrow: pa.DataType, dtype: str
) -> None:
    column = pa.array([[0, 1], [1, 0], [1, 1]]).cast(arrow)

    opened = source(write(tmp_path / "a.parquet", {"x": column}))

    assert opened.features[1] == Feature(name="x", dtype=dtype, shape=(2,))
    assert rows(opened)["x"] == [[0, 1], [1, 0], [1, 1]]


def test_the_configuration_overrides_types(tmp_path: Path) -> None:
    columns = {"a": ["1", None], "b": [1, 2], "c": [[1, 2], [3, 4]], "d": [2.0, 3.0], "e": [0, 1]}
    path = write(tmp_path / "a.parquet", columns)

    types = {"a": "float32", "b": "string", "c": "float32", "d": "int64"}
    opened = source(path, types=types)

    assert [feature.dtype for feature in opened.features[1:]] == [
        "float32",
        "string",
        "float32",
        "int64",
        "int64",
    ]
    assert rows(opened) == {
        "example_id": ["a.parquet:0+0", "a.parquet:0+1"],
        "a": [1.0, None],
        "b": ["1", "2"],
        "c": [[1.0, 2.0], [3.0, 4.0]],
        "d": [2, 3],
        "e": [0, 1],
    }


def test_a_source_is_described(numbers: Path) -> None:
    opened = source(numbers, label="x")

    assert opened.label == "x"
    assert opened.classes is None
    assert opened.ids_are_unique
    size = numbers.stat().st_size / 1000
    assert opened.description == {
        "name": "parquet",
        "files": f"1 file, {size:.0f} kB",
        "path": str(numbers),
    }


def test_row_groups_share_a_fragment_while_they_fit(
    numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = source(numbers)
    at_once = rows(whole)
    together = [part.name for part in whole.fragments()]
    footer = pq.read_metadata(numbers)
    largest = max(footer.row_group(group).total_byte_size for group in range(10))
    monkeypatch.setattr(parquet, "FRAGMENT_BYTES", 3 * largest)

    opened = source(numbers)

    assert together == [f"{numbers} row group 0 to 9"]
    assert [part.name for part in opened.fragments()] == [
        f"{numbers} row group 0 to 2",
        f"{numbers} row group 3 to 5",
        f"{numbers} row group 6 to 8",
        f"{numbers} row group 9",
    ]
    assert [table.num_rows for table in tables(opened)] == [30, 30, 30, 10]
    assert rows(opened) == at_once
    assert rows(opened)["example_id"][29:31] == ["numbers.parquet:2+9", "numbers.parquet:3+0"]


def test_a_large_row_group_is_read_in_pieces(
    numbers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows(source(numbers))
    monkeypatch.setattr(parquet, "FRAGMENT_BYTES", 60)

    opened = source(numbers)
    read = tables(opened)

    assert len(opened.fragments()) == 10
    assert len(read) >= 30
    assert read == tables(opened)
    assert rows(opened) == whole


def test_the_source_travels_to_workers(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FRAGMENT_BYTES", 60)
    opened = source(numbers, label="x")

    travelled = pickle.loads(pickle.dumps(opened))  # noqa: S301

    assert travelled.schema == opened.schema
    assert travelled.fragments() == opened.fragments()
    assert tables(travelled) == tables(opened)


def test_files_are_read_in_order_and_may_be_without_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"x": pa.array([], pa.int64())})
    write(tmp_path / "b.parquet", {"x": [1, 2, 3]})
    write(tmp_path / "c.parquet", {"x": [4]})

    opened = source(tmp_path)

    assert rows(opened) == {
        "example_id": ["b.parquet:0+0", "b.parquet:0+1", "b.parquet:1+0", "c.parquet:0+0"],
        "x": [1, 2, 3, 4],
    }


def test_a_named_column_identifies_examples_and_stays(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"key": [7, 8, 9], "real": [0.1, 0.2, 0.3]})

    opened = source(path, id="key")

    assert not opened.ids_are_unique
    assert rows(opened)["example_id"] == ["7", "8", "9"]
    assert rows(opened)["key"] == [7, 8, 9]
    assert rows(source(path, id="real"))["example_id"] == ["0.1", "0.2", "0.3"]


def test_a_column_called_example_id_identifies_examples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"x": [1, 2, 3], "example_id": [7, 8, 9]})

    assert rows(source(path)) == {"example_id": ["7", "8", "9"], "x": [1, 2, 3]}


def test_a_missing_id_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"key": ["a", "b", "c", None, "e"]})

    assert refusal(path, id="key") == (
        "a.parquet: row 3: column 'key': the id is missing; fill it in, or name another data.id"
    )


def test_lists_are_no_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"x": [[1], [2]]})

    assert refusal(path, id="x") == "data.id: column 'x' of a.parquet holds lists; name another"
    assert refusal(path, types={"x": "string"}) == (
        "data.types.x: lists cannot be strings; a.parquet holds lists"
    )


def test_columns_that_are_not_there_are_refused(numbers: Path) -> None:
    has = "it has: x, y"
    assert refusal(numbers, label="tips") == (
        f"data.label: no column 'tips' in numbers.parquet; {has}"
    )
    assert refusal(numbers, id="key") == f"data.id: no column 'key' in numbers.parquet; {has}"
    assert refusal(numbers, types={"z": "string"}) == (
        f"data.types.z: no column 'z' in numbers.parquet; {has}"
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1], "z": [1]}, "its columns are not those of a.parquet: column 'y' is in one only"),
        ({"y": [1], "x": [1]}, "its columns are not those of a.parquet: their order differs"),
        (
            {"x": [1], "y": [0.5]},
            "column 'y' holds double, but int64 in a.parquet; convert one of them",
        ),
    ],
)
def test_files_with_other_columns_are_refused(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    write(tmp_path / "a.parquet", {"x": [1], "y": [1]})
    write(tmp_path / "b.parquet", columns)

    assert refusal(tmp_path) == f"b.parquet: {message}"


@pytest.mark.parametrize(
    ("column", "arrow"),
    [
        (pa.array([b"x"]), "binary"),
        (pa.array([{"a": 1}]), "struct<a: int64>"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "map<string, int64"),
        (pa.array([[[1]]]), "list<element: list<element: int64>>"),
        (pa.array([["a"]]), "list<element: string>"),
        (pa.array([decimal.Decimal("1.5")]), "decimal128(2, 1)"),
        (pa.array([1], pa.duration("s")), "duration[s]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_are_neither_numbers_nor_text_are_refused(
    tmp_path: Path, column: pa.Array, arrow: str
) -> None:
    message = refusal(write(tmp_path / "a.parquet", {"x": column}))

    assert message.startswith(f"a.parquet: column 'x' holds {arrow}")
    assert message.endswith(", which is not supported; leave it out or convert it")


@pytest.mark.parametrize(
    ("column", "types", "message"),
    [
        (
            pa.array([1, 2, 3, 1 << 63], pa.uint64()),
            {},
            "row 3: column 'x': 9223372036854775808 is no int64; "
            "set data.types.x=float32 or string",
        ),
        (
            pa.array(["1", "2", "3", "x"]),
            {"x": "int64"},
            "row 3: column 'x': 'x' is no int64; set data.types.x=float32 or string",
        ),
        (
            pa.array(["1", "x", "3"]),
            {"x": "float32"},
            "row 1: column 'x': 'x' is no float32; set data.types.x=string",
        ),
        (
            pa.array([1.0, 2.0, 0.5]),
            {"x": "int64"},
            "row 2: column 'x': 0.5 is no int64; set data.types.x=float32 or string",
        ),
        (
            pa.array([[1], [2], None]),
            {},
            "row 2: column 'x': the list is missing; fill it in, or leave the row out",
        ),
        (
            pa.array([None, [1]]),
            {},
            "row 0: column 'x': the list is missing or empty; fill it in, or leave the row out",
        ),
        (
            pa.array([[1], [2], [3], [None]]),
            {},
            "row 3: column 'x': holds a number that is missing or no int64; "
            "fill it in, or leave the row out",
        ),
        (
            pa.array([[1, 2], [3, 4], [5, 6], [7]]),
            {},
            "row 3: column 'x': holds 1 numbers, the first row 2; make all lists as long",
        ),
        (
            pa.array([[1], [2], None], pa.list_(pa.int64(), 1)),
            {},
            "a list of a fixed-size list column is missing; fill it in",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_named(
    tmp_path: Path, column: pa.Array, types: dict[str, str], message: str
) -> None:
    path = write(tmp_path / "a.parquet", {"x": column})

    assert refusal(path, types=types) == f"a.parquet: {message}"


def test_files_without_any_row_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"x": pa.array([], pa.int64())})

    assert refusal(path) == "a.parquet: has no rows; give files with some"


def test_a_damaged_file_is_refused(numbers: Path) -> None:
    prefix = "numbers.parquet: is not a readable Parquet file (truncated?): "
    whole = numbers.read_bytes()

    numbers.write_bytes(whole[:-10])
    assert refusal(numbers).startswith(prefix)

    numbers.write_bytes(b"x,y\n1,2\n" * 100)
    assert refusal(numbers).startswith(prefix)

    numbers.write_bytes(whole[:4] + bytes(1000) + whole[1004:])
    assert refusal(numbers).startswith(prefix)
