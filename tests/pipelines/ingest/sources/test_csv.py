import bz2
import gzip
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.data_config import CsvConfig, DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile
from pipelines.ingest.sources import csv
from pipelines.ingest.sources.base import Source
from pipelines.ingest.sources.csv import Csv
from pipelines.ingest.sources.csv_text import is_compressed


def source(path: Path | list[Path], *, csv: dict[str, Any] | None = None, **fields: Any) -> Csv:
    paths = [str(each) for each in path] if isinstance(path, list) else str(path)
    return Csv(DataConfig(source="csv", path=paths, csv=CsvConfig(**csv or {}), **fields))


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


def dtypes(opened: Source) -> dict[str, str]:
    return {feature.name: feature.dtype for feature in opened.features}


def refusal(path: Path | list[Path], **fields: Any) -> str:
    """The message, with the folder left out."""
    folder = path[0].parent if isinstance(path, list) else path.parent
    with pytest.raises(InputError) as refused:
        tables(source(path, **fields))
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


@pytest.fixture
def small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "FRAGMENT_BYTES", 64)


@pytest.fixture
def taxis(tmp_path: Path) -> Path:
    """Some rows, of which several fit into a small fragment."""
    path = tmp_path / "taxis.csv"
    lines = [f"{number},{number / 4},cab {number}" for number in range(40)]
    path.write_text("\n".join(["trip,fare,cab", *lines]) + "\n")
    return path


def test_values_have_the_types_that_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "all.csv"
    path.write_text(
        "whole,real,flag,day,moment,zoned,time,text\n"
        "1,1.5,true,1970-01-02,1970-01-01 00:00:01.5,1970-01-01T01:00:00+01:00,12:00:00,a\n"
        "NA,,false,1969-12-31,1969-12-31 23:59:59.5,1970-01-01T00:00:02Z,,\n"
    )

    opened = source(path)

    assert dtypes(opened) == {
        "example_id": "string",
        "whole": "int64",
        "real": "float32",
        "flag": "int64",
        "day": "int64",
        "moment": "int64",
        "zoned": "int64",
        "time": "string",
        "text": "string",
    }
    assert rows(opened) == {
        "example_id": ["all.csv:0+0", "all.csv:0+1"],
        "whole": [1, None],
        "real": [1.5, None],
        "flag": [1, 0],
        "day": [86400, -86400],
        "moment": [1, -1],
        "zoned": [0, 2],
        "time": ["12:00:00", None],
        "text": ["a", None],
    }


def test_the_configuration_overrides_types(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("zip,count,flag,day\n00501,1,true,2020-01-01\n")

    opened = source(path, types={"zip": "string", "count": "float32", "flag": "float32"})

    assert rows(opened) == {
        "example_id": ["a.csv:0+0"],
        "zip": ["00501"],
        "count": [1.0],
        "flag": [1.0],
        "day": [1577836800],
    }
    assert rows(source(path, types={"day": "string", "flag": "string"})) == {
        "example_id": ["a.csv:0+0"],
        "zip": [501],
        "count": [1],
        "flag": ["true"],
        "day": ["2020-01-01"],
    }


def test_a_source_is_described(taxis: Path) -> None:
    opened = source(taxis, label="fare")

    assert opened.label == "fare"
    assert opened.classes is None
    assert opened.ids_are_unique
    assert opened.description == {"name": "csv", "files": "1 file, 574 bytes", "path": str(taxis)}


def test_a_delimiter_and_missing_values_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n1\t-\nNA\t2,5\n")

    read = rows(source(path, csv={"delimiter": "\t", "missing": ["-"]}))

    assert (read["a"], read["b"]) == (["1", "NA"], [None, "2,5"])


def test_a_delimiter_that_does_not_fit_gives_one_column(taxis: Path) -> None:
    assert dtypes(source(taxis, csv={"delimiter": ";"})) == {
        "example_id": "string",
        "trip,fare,cab": "string",
    }


@pytest.mark.parametrize("delimiter", ["¦", '"'])
def test_an_impossible_delimiter_is_refused(taxis: Path, delimiter: str) -> None:
    assert refusal(taxis, csv={"delimiter": delimiter}) == (
        f"data.csv.delimiter: {delimiter!r} cannot separate values; "
        "it must be an ASCII character other than a quote or line break"
    )


def test_a_byte_order_mark_and_carriage_returns_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,x\r\n\r\n2,y")

    assert rows(source(path)) == {
        "example_id": ["a.csv:0+0", "a.csv:0+1"],
        "a": [1, 2],
        "b": ["x", "y"],
    }


@pytest.mark.parametrize("size", [1, 5, 13, 14, 15, 64, 200, 573, 574, 1000])
def test_every_row_is_in_one_fragment(
    taxis: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(csv, "FRAGMENT_BYTES", size)

    opened = source(taxis)
    read = rows(opened)

    assert len(opened.fragments()) == -(-574 // size)
    assert read["trip"] == list(range(40))
    assert read["cab"] == [f"cab {number}" for number in range(40)]
    assert len(set(read["example_id"])) == 40


def test_a_fragment_owns_the_lines_that_begin_in_it(taxis: Path, small_fragments: None) -> None:
    opened = source(taxis)
    first, second, *_ = opened.fragments()

    assert [(part.number, part.name) for part in (first, second)] == [
        (0, f"{taxis} from byte 0"),
        (1, f"{taxis} from byte 64"),
    ]
    (table,) = opened.read(second, no_skip)
    assert table["example_id"].to_pylist() == [f"taxis.csv:64+{row}" for row in range(len(table))]
    assert table["trip"].to_pylist() == [4, 5, 6, 7, 8, 9]


def test_rows_keep_their_ids_when_others_are_appended(taxis: Path, small_fragments: None) -> None:
    before = rows(source(taxis))
    taxis.write_text(taxis.read_text() + "40,10.0,cab 40\n")
    after = rows(source(taxis))

    assert {name: values[:40] for name, values in after.items()} == before
    assert after["trip"][40:] == [40]


def test_the_source_travels_to_workers(taxis: Path, small_fragments: None) -> None:
    opened = source(taxis, label="fare")

    travelled = pickle.loads(pickle.dumps(opened))  # noqa: S301

    assert travelled.schema == opened.schema
    assert travelled.fragments() == opened.fragments()
    last = opened.fragments()[-1]
    assert list(travelled.read(last, no_skip)) == list(opened.read(last, no_skip))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
def test_a_compressed_file_reads_as_the_plain_one(
    taxis: Path, small_fragments: None, suffix: str
) -> None:
    text = taxis.read_bytes()
    packed = taxis.with_name(f"taxis.csv{suffix}")
    if suffix == ".zst":
        packed.write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    else:
        packed.write_bytes(gzip.compress(text) if suffix == ".gz" else bz2.compress(text))

    opened = source(packed)
    pieces = tables(opened)

    assert [part.name for part in opened.fragments()] == [str(packed)]
    assert [table.num_rows for table in pieces] == [
        table.num_rows for table in tables(source(taxis))
    ]
    plain = rows(source(taxis))
    assert rows(opened) == plain | {
        "example_id": [each.replace(".csv", f".csv{suffix}") for each in plain["example_id"]]
    }


def test_a_signed_url_is_known_as_compressed() -> None:
    signed = "https://host.example/taxis.csv.gz?signature=a.b/c"

    assert is_compressed(SourceFile(signed, "taxis.csv.gz", 100, "1"))
    assert not is_compressed(SourceFile(signed.replace(".gz", ""), "taxis.csv", 100, "1"))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("header_fits", [True, False])
def test_a_truncated_compressed_file_is_refused(
    tmp_path: Path, suffix: str, header_fits: bool
) -> None:
    text = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n % 7919) for n in range(400_000))
    packed = tmp_path / f"a.csv{suffix}"
    if suffix == ".zst":
        whole = pa.compress(text, codec="zstd", asbytes=True)
    else:
        whole = gzip.compress(text, 1) if suffix == ".gz" else bz2.compress(text)
    packed.write_bytes(whole[: -100 if header_fits else 50])

    assert refusal(packed) == (
        f"a.csv{suffix}: is truncated or damaged: Truncated compressed stream; replace it"
    )


def test_values_may_hold_line_breaks_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,"te\nxt"\n1,"x\ny"\n2,"say ""hi""\n"\n3,z\n')

    opened = source(path, csv={"newlines_in_values": True})

    assert [part.name for part in opened.fragments()] == [str(path)]
    assert rows(opened) == {
        "example_id": ["a.csv:0+0", "a.csv:0+1", "a.csv:0+2"],
        "n": [1, 2, 3],
        "te\nxt": ["x\ny", 'say "hi"\n', "z"],
    }


def test_a_file_with_line_breaks_in_values_is_read_in_pieces(
    tmp_path: Path, small_fragments: None
) -> None:
    path = tmp_path / "a.csv.gz"
    lines = [f'{number},"line\nbreak"\n' for number in range(50)]
    path.write_bytes(gzip.compress(("n,t\n" + "".join(lines)).encode()))

    opened = source(path, csv={"newlines_in_values": True})
    read = tables(opened)

    assert len(read) > 5
    assert rows(opened)["n"] == list(range(50))
    assert rows(opened)["example_id"] == [f"a.csv.gz:0+{number}" for number in range(50)]
    assert read == tables(opened)


def test_line_breaks_in_values_are_refused_where_that_is_not_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,t\n1,x\n2,"x\ny"\n')
    assert refusal(path) == (
        "a.csv: line 4: has 1 values, the header 2; "
        "if values hold line breaks, set data.csv.newlines_in_values=true"
    )

    path.write_text('t\nx\n"x\ny"\nz\n')
    assert refusal(path) == (
        "a.csv: line 3: a quoted value goes on in the next line; "
        "if values hold line breaks, set data.csv.newlines_in_values=true"
    )


def test_files_are_read_in_order_with_ids_of_their_own(tmp_path: Path) -> None:
    for name, value in [("b.csv", 2), ("a.csv", 1), ("sub/c.csv", 3)]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"x\n{value}\n")

    opened = source(tmp_path)

    assert rows(opened) == {
        "example_id": ["a.csv:0+0", "b.csv:0+0", "sub/c.csv:0+0"],
        "x": [1, 2, 3],
    }
    assert opened.description["files"] == "3 files, 12 bytes"


def test_files_without_rows_among_others_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    (tmp_path / "c.csv").write_text("x,y\n\n\n")

    assert rows(source(tmp_path))["x"] == [1]


def test_a_column_that_begins_empty_has_its_first_values_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "SAMPLE_BYTES", 64)
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("n,real,day,text,none\n" + "".join(f"{n},,,NA,\n" for n in range(50)))
    second.write_text("n,real,day,text,none\n50,,2020-01-01,\n".replace("01,\n", "01,,\n"))
    second.write_text(second.read_text() + "51,0.5,,x,\n")

    opened = source(tmp_path)

    assert dtypes(opened) == {
        "example_id": "string",
        "n": "int64",
        "real": "float32",
        "day": "int64",
        "text": "string",
        "none": "string",
    }
    read = rows(opened)
    assert read["real"] == [None] * 51 + [0.5]
    assert read["day"] == [None] * 50 + [1577836800, None]
    assert read["text"] == [None] * 51 + ["x"]
    assert read["none"] == [None] * 52


def test_a_named_column_identifies_examples_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key,code,x\n7,A1,1\n8,1.50,2\n")

    by_number, by_code = source(path, id="key"), source(path, id="code")

    assert not by_number.ids_are_unique
    assert rows(by_number)["example_id"] == ["7", "8"]
    assert rows(by_number)["key"] == [7, 8]
    assert rows(by_code)["example_id"] == ["A1", "1.50"]
    assert list(rows(by_code)) == ["example_id", "key", "code", "x"]


def test_numbers_with_fractions_identify_examples_by_their_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("key\n1.50000001\n1.50000002\n")

    read = rows(source(path, id="key"))

    assert read["example_id"] == read["key"] == ["1.50000001", "1.50000002"]


def test_a_column_called_example_id_identifies_examples_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,example_id\n1,007\n2,7\n")

    assert rows(source(path)) == {"example_id": ["007", "7"], "x": [1, 2]}
    assert rows(source(path, id="example_id")) == {"example_id": ["007", "7"], "x": [1, 2]}
    assert refusal(path, types={"example_id": "int64"}) == (
        "data.types.example_id: example_id is always a string; leave it out"
    )
    assert refusal(path, id="x") == (
        "data.id: a.csv has a column 'example_id', which would be lost; "
        "rename it, or leave data.id out"
    )


@pytest.mark.parametrize("newlines", [False, True])
def test_a_missing_id_is_refused(tmp_path: Path, small_fragments: None, newlines: bool) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{number},some text" for number in range(20)]
    lines[15] = "NA,some text"
    path.write_text("\n".join(["key,x", *lines]))

    assert refusal(path, id="key", csv={"newlines_in_values": newlines}) == (
        "a.csv: line 17: column 'key': the id is missing; fill it in, or name another data.id"
    )


def test_columns_that_are_not_there_are_refused(taxis: Path) -> None:
    has = "it has: trip, fare, cab"
    assert refusal(taxis, label="price") == f"data.label: no column 'price' in taxis.csv; {has}"
    assert refusal(taxis, label="fares") == (
        f"data.label: no column 'fares' in taxis.csv; did you mean 'fare'? {has}"
    )
    assert refusal(taxis, id="key") == f"data.id: no column 'key' in taxis.csv; {has}"
    assert refusal(taxis, types={"x": "string"}) == (
        f"data.types.x: no column 'x' in taxis.csv; {has}"
    )


def test_files_with_other_headers_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("x,y\n1,2\n")
    second.write_text("x,z\n1,2\n")
    assert refusal([first, second]) == (
        "b.csv: its columns are not those of a.csv: lacks y and has z besides"
    )

    second.write_text("y,x\n1,2\n")
    assert refusal([first, second]) == (
        "b.csv: its columns are not those of a.csv: their order differs"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x,y", "a.csv: has no rows below its header; add some"),
        (b"x,y\n\n", "a.csv: has no rows below its header; add some"),
        (b"\n\n", "a.csv: has no header; its first line must name the columns"),
        (b"", "a.csv: is empty; remove it or leave it out of data.path"),
        (b"x,y,x\n1,2,3\n", "a.csv: column 'x' appears twice; rename one of them"),
        (b",x\n0,1\n", "a.csv: column 1 has no name; give it one"),
        ("x,é\n1,2\n".encode("utf-16"), "a.csv: line 1 is not UTF-8 text; convert the file"),
        (
            "x,y\n1,a\n2,é\n".encode("latin-1"),
            "a.csv: line 3: is not UTF-8 text; convert the file to UTF-8",
        ),
        (
            b"x,y\n1,2\n\n3\n",
            "a.csv: line 4: has 1 values, the header 2; correct it, or quote values that hold ','",
        ),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)

    assert refusal(path) == message


@pytest.mark.parametrize("newlines", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"33,2", "has 2 values, the header 4; correct it, or quote values that hold ','"),
        (b"3,2,a,b,c", "has 5 values, the header 4; correct it, or quote values that hold ','"),
        (b"3,2,a\xff,1970-01-01", "is not UTF-8 text; convert the file to UTF-8"),
        (
            b"0.5,2,a,1970-01-01",
            "column 'whole': '0.5' is not a whole number of 64 bits; set data.types.whole="
            "float32 or string, or add the value to data.csv.missing",
        ),
        (
            b"3,abc,a,1970-01-01",
            "column 'real': 'abc' is not a number; set data.types.real=string, "
            "or add the value to data.csv.missing",
        ),
        (
            b"3,2,a,yesterday",
            "column 'day': 'yesterday' is not a date or time as in the rows before; "
            "set data.types.day=string, or add the value to data.csv.missing",
        ),
    ],
)
def test_a_bad_line_far_below_the_sample_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: bytes,
    message: str,
    compressed: bool,
    newlines: bool,
) -> None:
    monkeypatch.setattr(csv, "FRAGMENT_BYTES", 256)
    monkeypatch.setattr(csv, "SAMPLE_BYTES", 256)
    lines = [b"whole,real,text,day", b""] + [b"%d,0.5,some,1970-01-01" % n for n in range(100)]
    lines[80] = line
    content = b"\n".join(lines)
    path = tmp_path / ("a.csv.gz" if compressed else "a.csv")
    path.write_bytes(gzip.compress(content) if compressed else content)

    expected = f"{path.name}: line 81: {message}"
    assert refusal(path, csv={"newlines_in_values": newlines}) == expected


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path, small_fragments: None) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,t\n1,x\n2,"y\n' + "3,z\n" * 100)
    assert refusal(path, csv={"newlines_in_values": True}) == (
        "a.csv: cannot be read as CSV; is a quoted value never closed?"
    )


def test_a_long_value_is_cut_in_the_message(tmp_path: Path, small_fragments: None) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "1\n" * 10 + "x" * 1000)

    message = refusal(path, types={"n": "int64"})

    assert message.startswith(f"a.csv: line 12: column 'n': '{'x' * 60}...' is not a whole number")


def test_infinite_and_huge_numbers_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x\n0.5\ninf\n1e60\n")

    column = pa.concat_tables(tables(source(path)))["x"]

    assert pc.is_inf(column).to_pylist() == [False, True, True]
