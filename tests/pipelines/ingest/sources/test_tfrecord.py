import gzip
import pickle
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources import open_source, tfrecord
from pipelines.ingest.sources.tfrecord import TfRecord

Value = Sequence[float] | Sequence[int] | Sequence[bytes]
Rows = Iterable[Mapping[str, Value]]

ROWS: list[dict[str, Value]] = [
    {"age": [31], "name": [b"Ada"], "score": [0.5], "pixels": [0.0, 0.25, 1.0]},
    {"age": [-7], "name": ["Zoë".encode()], "score": [1e10], "pixels": [3.0, 2.0, 1.0]},
    {"age": [1 << 40], "name": [b""], "score": [-0.0], "pixels": [7.0, 8.0, 9.0]},
]


# The format written down a second time, byte by byte, so that the reader has something to meet.
def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def delimited(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def feature(values: Value, kind: int | None = None) -> bytes:
    """1: bytes, 2: floats, 3: integers; by default what the first value is."""
    kind = kind or {bytes: 1, float: 2, int: 3}[type(values[0])]
    if kind == 1:
        content = b"".join(delimited(1, value) for value in values)  # type: ignore[arg-type]
    elif kind == 2:
        content = delimited(1, np.array(values, "<f4").tobytes())
    else:
        content = delimited(1, b"".join(varint(value) for value in values))  # type: ignore[arg-type]
    return delimited(kind, content)


def example(row: Mapping[str, Value | bytes]) -> bytes:
    entries = b""
    for name, values in row.items():
        encoded = values if isinstance(values, bytes) else feature(values)
        entries += delimited(1, delimited(1, name.encode()) + delimited(2, encoded))
    return delimited(1, entries)


def masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)


def framed(*records: bytes) -> bytes:
    return b"".join(
        (length := struct.pack("<Q", len(data))) + masked(length) + data + masked(data)
        for data in records
    )


Write = Callable[..., DataConfig]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows to a file in a folder of their own; gives the folder's configuration."""

    def write(rows: Rows, name: str = "a.tfrecord", **fields: Any) -> DataConfig:
        content = framed(*map(example, rows))
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return DataConfig(source="tfrecord", path=str(path.parent), **fields)

    return write


def refuse_to_skip(reason: str) -> None:
    pytest.fail(f"left an example out: {reason}")


def read(source: TfRecord) -> list[pa.Table]:
    pieces = [piece for each in source.fragments() for piece in source.read(each, refuse_to_skip)]
    assert all(piece.schema == source.schema for piece in pieces)
    return pieces


def rows(config: DataConfig) -> list[dict[str, Any]]:
    return pa.concat_tables(read(TfRecord(config))).to_pylist()


def refusal(config: DataConfig) -> str:
    """The message, without the folder's name."""
    with pytest.raises(InputError) as caught:
        read(TfRecord(config))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{config.path}/", "")


def test_features_become_columns_sorted_by_name(write: Write) -> None:
    source = open_source(write(ROWS, label="age"))

    assert isinstance(source, TfRecord)
    assert source.features == (
        Feature(name="example_id", dtype="string"),
        Feature(name="age", dtype="int64"),
        Feature(name="name", dtype="string"),
        Feature(name="pixels", dtype="float32", shape=(3,)),
        Feature(name="score", dtype="float32"),
    )
    assert (source.label, source.classes, source.ids_are_unique) == ("age", None, True)
    assert source.description["name"] == "tfrecord"
    assert source.description["files"] == f"1 file, {len(framed(*map(example, ROWS)))} bytes"
    assert pa.concat_tables(read(source)).to_pylist() == [
        {
            "example_id": f"a.tfrecord:{number}",
            "age": row["age"][0],
            "name": bytes(row["name"][0]).decode(),  # type: ignore[arg-type]
            "pixels": row["pixels"],
            "score": np.float32(row["score"][0]),
        }
        for number, row in enumerate(ROWS)
    ]


def test_a_source_that_travelled_reads_the_same(write: Write) -> None:
    source = TfRecord(write(ROWS))

    assert read(pickle.loads(pickle.dumps(source))) == read(source)  # noqa: S301 - our own


def test_each_file_is_a_fragment_and_names_its_examples(write: Write) -> None:
    write(ROWS[:1], "b.tfrecord.gz")
    source = TfRecord(write(ROWS[1:], "a.tfrecord"))

    assert [each.name for each in source.fragments()] == ["a.tfrecord", "b.tfrecord.gz"]
    assert [piece["example_id"].to_pylist() for piece in read(source)] == [
        ["a.tfrecord:0", "a.tfrecord:1"],
        ["b.tfrecord.gz:0"],
    ]
    assert read(source)[1]["name"].to_pylist() == ["Ada"]


def test_gzip_is_known_by_its_content_not_by_its_name(write: Write) -> None:
    config = write(ROWS, "a.tfrecord")
    expected = rows(config)
    path = Path(f"{config.path}/a.tfrecord")
    path.write_bytes(gzip.compress(path.read_bytes()))

    assert rows(config) == expected


def test_a_record_whose_length_looks_like_gzip_is_read(write: Write) -> None:
    overhead = len(example({"x": [b"y" * 35_000]})) - 35_000
    row: dict[str, Value] = {"x": [b"y" * (0x8B1F - overhead)]}
    config = write([row])

    assert Path(f"{config.path}/a.tfrecord").read_bytes().startswith(b"\x1f\x8b")
    assert [each["x"] for each in rows(config)] == ["y" * (0x8B1F - overhead)]


def test_a_file_is_read_in_pieces(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write([{"x": [number], "text": [b"*" * 80]} for number in range(10)])
    whole = read(TfRecord(config))
    monkeypatch.setattr(tfrecord, "PIECE_BYTES", 300)
    source = TfRecord(config)
    pieces = read(source)

    assert [piece.num_rows for piece in pieces] == [3, 3, 3, 1]
    assert pa.concat_tables(pieces) == pa.concat_tables(whole)
    assert read(source) == pieces


def test_a_piece_counts_what_its_lists_take_in_memory(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord, "PIECE_BYTES", 2 * 8 * 100)
    config = write([{"small": [1] * 100}] * 5)

    assert [piece.num_rows for piece in read(TfRecord(config))] == [2, 2, 1]


def test_a_scalar_may_be_missing(write: Write) -> None:
    empty = {kind: feature([], kind) for kind in (1, 2, 3)}
    config = write(
        [
            {"i": b"", "f": b"", "s": b"", "always": [1]},
            {"i": [1], "f": [2.0], "s": [b"three"], "always": [2]},
            {"always": [3]},
            {"i": empty[3], "f": empty[2], "s": empty[1], "always": [4]},
        ]
    )

    present = {"i": 1, "f": 2.0, "s": "three"}
    missing = dict.fromkeys(present)
    assert [
        {name: row[name] for name in ("i", "f", "s")} for row in rows(config)
    ] == [missing, present, missing, missing]  # fmt: skip


def test_a_record_without_any_feature_is_an_example_too(write: Write) -> None:
    config = write([{"x": [1]}, {}, {"x": [3]}, {}])

    assert [row["x"] for row in rows(config)] == [1, None, 3, None]


def test_numbers_that_are_not_packed_are_read(write: Write) -> None:
    unpacked = delimited(2, b"".join(b"\x0d" + struct.pack("<f", x) for x in (1.0, 2.5)))
    config = write([{"x": unpacked, "n": delimited(3, b"\x08\x05")}])

    assert rows(config) == [{"example_id": "a.tfrecord:0", "n": 5, "x": [1.0, 2.5]}]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_arrive(write: Write, value: float) -> None:
    table = read(TfRecord(write([{"x": [value], "xs": [value, value]}])))[0]

    np.testing.assert_equal(table["x"].to_numpy(), np.float32([value]))
    assert table["x"].null_count == 0
    np.testing.assert_equal(table["xs"].chunk(0).flatten().to_numpy(), np.float32([value] * 2))


@pytest.mark.parametrize("column", ["example_id", "user"])
def test_a_column_can_name_the_examples(write: Write, column: str) -> None:
    config = write(
        [{column: [number], "x": [1.0]} for number in (5, 7)],
        id=None if column == "example_id" else column,
    )
    source = TfRecord(config)

    assert not source.ids_are_unique
    assert rows(config)[1] == {"example_id": "7", "x": 1.0} | (
        {} if column == "example_id" else {"user": 7}
    )
    assert source.features[0] == Feature(name="example_id", dtype="string")


def test_a_missing_id_is_refused(write: Write) -> None:
    assert refusal(write([{"user": [b"a"]}, {"x": [1]}, {"user": [b"c"]}], id="user")) == (
        "a.tfrecord: record 2: has no 'user', which names the example; "
        "give it one, or name another column in data.id"
    )


def test_a_list_cannot_name_the_examples(write: Write) -> None:
    assert refusal(write(ROWS, id="pixels")) == (
        "data.id: 'pixels' is a list in a.tfrecord; name a column of single values"
    )


@pytest.mark.parametrize("field", ["id", "label"])
def test_an_unknown_column_is_refused(write: Write, field: str) -> None:
    assert refusal(write(ROWS, **{field: "x"})) == (
        f"data.{field}: no column 'x' in a.tfrecord; it has: age, name, pixels, score"
    )


def test_types_change_columns(write: Write) -> None:
    config = write(
        [{"i": [1 << 25 | 1], "f": [2.0], "s": [b"34"], "many": [5, 6], "never": b""}],
        types={"i": "float32", "f": "int64", "s": "int64", "many": "float32", "never": "string"},
    )

    assert [feature.dtype for feature in TfRecord(config).features[1:]] == [
        *("int64", "float32", "float32", "string", "int64")
    ]
    assert rows(config) == [
        {
            "example_id": "a.tfrecord:0",
            "f": 2,
            "i": float(1 << 25),
            "many": [5.0, 6.0],
            "never": None,
            "s": 34,
        }
    ]


@pytest.mark.parametrize(
    ("column", "dtype", "message"),
    [
        ("x", "int64", "data.types.x: no column 'x' in a.tfrecord; it has: f, fs, s"),
        ("f", "int64", "a.tfrecord: record 2: 'f' is no int64; set data.types.f to another type"),
        (
            "fs",
            "int64",
            "a.tfrecord: record 2: 'fs' is no int64; set data.types.fs to another type",
        ),
        ("s", "int64", "a.tfrecord: record 2: 's' is no int64; set data.types.s to another type"),
        (
            "fs",
            "string",
            "data.types.fs: 'fs' is a list of 2 numbers in a.tfrecord, so it cannot be a string",
        ),
    ],
)
def test_a_type_that_does_not_fit_is_refused(
    write: Write, column: str, dtype: str, message: str
) -> None:
    written = [
        {"f": [1.0], "s": [b"1"], "fs": [1.0, 2.0]},
        {"f": [1.5], "s": [b"one"], "fs": [1.0, 2.5]},
    ]
    assert refusal(write(written, types={column: dtype})) == message


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"x": [1], "xs": [1, 2], "y": [1]}, "has a feature 'y', which the first file's first "
         "records lack"),
        ({"xs": [1, 2], "y": [1]}, "has a feature 'y', which the first file's first records lack"),
        ({"x": [1.0], "xs": [1, 2]}, "'x' is a float_list; in the first file it begins as a "
         "int64_list"),
        ({"x": [1, 2], "xs": [1, 2]}, "'x' has 2 values where 1 is expected; write lists padded "
         "to one length"),
        ({"x": [1], "xs": [1, 2, 3]}, "'xs' has 3 values where 2 are expected; write lists padded "
         "to one length"),
        ({"x": [1], "xs": [1]}, "'xs' has 1 value where 2 are expected; write lists padded to one "
         "length"),
        ({"x": [1]}, "'xs' has no values where 2 are expected; write lists padded to one length"),
    ],
)  # fmt: skip
def test_a_record_unlike_the_first_ones_is_refused(
    write: Write, second: dict[str, Value], message: str
) -> None:
    write([{"x": [1], "xs": [1, 2]}])
    config = write([{"x": [1], "xs": [1, 2]}, second], "b.tfrecord")

    assert refusal(config) == f"b.tfrecord: record 2: {message}"


def test_encoded_bytes_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "PIECE_BYTES", 1)
    config = write([{"image": [b"fine"]}, {"image": b""}, {"image": [b"\x89PNG"]}])

    assert refusal(config) == (
        "a.tfrecord: record 3: 'image' is not UTF-8; "
        "encoded bytes (images, tensors) are not supported"
    )


def test_lists_of_strings_are_refused(write: Write) -> None:
    assert refusal(write([{"words": [b"a", b"b"]}])) == (
        "a.tfrecord: 'words' is a list of 2 strings, which is not supported; "
        "write one feature for each, or numbers"
    )


def test_a_feature_that_never_has_a_value_is_refused(write: Write) -> None:
    assert refusal(write([{"x": [1], "nothing": b""}])) == (
        "a.tfrecord: 'nothing' has no value in the first records, so its type is not known; "
        "set data.types.nothing"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b""), "holds no record; leave it out of data.path"),
        (framed(b""), "its records have no features; leave it out of data.path"),
        (framed(b"junk"), "record 1 is not a serialised tf.train.Example"),
        (
            framed(example(ROWS[0]) + delimited(2, b"lists")),
            "record 1 is a tf.train.SequenceExample, which is not supported; "
            "write tf.train.Examples",
        ),
        (
            b"age,name\n31,Ada\n",
            "record 1 is damaged (checksum), or this is not a TFRecord file",
        ),
    ],
    ids=["empty", "no features", "not an example", "sequence example", "CSV"],
)
def test_what_is_not_a_file_of_examples_is_refused(
    write: Write, content: bytes, message: str
) -> None:
    config = write([])
    Path(f"{config.path}/a.tfrecord").write_bytes(content)

    assert refusal(config) == f"a.tfrecord: {message}"


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_damage_is_found_wherever_it_is(write: Write, compress: Callable[[bytes], bytes]) -> None:
    config = write([])
    path = Path(f"{config.path}/a.tfrecord")
    first, second = framed(example(ROWS[0])), framed(example(ROWS[1]))

    for place in range(len(second)):
        damaged = bytearray(second)
        damaged[place] ^= 4
        path.write_bytes(compress(first + bytes(damaged) + first))
        message = refusal(config)
        in_header = place < 12
        assert message == "a.tfrecord: record 2 is damaged (checksum)" + (
            ", or this is not a TFRecord file" if in_header else ""
        )


def test_a_file_cut_off_is_refused_wherever_the_cut_is(write: Write) -> None:
    config = write([])
    path = Path(f"{config.path}/a.tfrecord")
    first, second = framed(example(ROWS[0])), framed(example(ROWS[1]))

    for length in range(1, len(second)):
        path.write_bytes(first + second[:length])
        assert refusal(config) == "a.tfrecord: is truncated in record 2"


def test_a_gzip_file_cut_off_or_damaged_is_refused(write: Write) -> None:
    config = write([])
    path = Path(f"{config.path}/a.tfrecord.gz")
    Path(f"{config.path}/a.tfrecord").unlink()
    noise = np.random.default_rng(0).integers(0, 1 << 60, 500)
    content = gzip.compress(framed(*(example({"x": [int(value)]}) for value in noise)))

    path.write_bytes(content[:-4])
    assert refusal(config) == "a.tfrecord.gz: is truncated in record 501"
    path.write_bytes(content[: len(content) // 2])
    assert refusal(config).startswith("a.tfrecord.gz: is truncated in record 2")
    for place in range(len(content) // 2, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert refusal(config).startswith("a.tfrecord.gz: record ")
        assert " is damaged (" in refusal(config)
