"""What is wrong with a CSV file, and in which line: a second, slower look at one that failed."""

import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pyarrow as pa
import pyarrow.csv as pc

from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile
from pipelines.ingest.sources.columns import first_failing
from pipelines.ingest.sources.csv_text import Layout, open_text
from pipelines.secrets import shown

__all__ = ["find_fault"]

_BATCH = 1 << 16
_LONGEST = 60
_NEWLINES = "if values hold line breaks, set data.csv.newlines_in_values=true"

Record = tuple[int, bytes]
"""The number of its first line, from 1, and its text."""


def find_fault(file: SourceFile, layout: Layout, start: int = 0) -> InputError:
    """The error that names the first bad line among those that begin at ``start`` or later.

    Raises:
        InputError: if the file cannot be read to there.
    """
    with open_text(file) as text:
        records = _records(text, layout, start)
        while batch := list(islice(records, _BATCH)):
            if _fails(layout, batch):
                number, fault = _first_fault(layout, batch)
                return InputError(f"{shown(file.url)}: line {number}: {fault}")
    return InputError(f"{shown(file.url)}: cannot be read as CSV; is a quoted value never closed?")


def _records(text: io.BufferedReader, layout: Layout, start: int) -> Iterator[Record]:
    """The rows that begin at ``start`` or later, without the header and empty lines."""
    first, offset, header = 1, 0, True
    record = b""
    for number, line in enumerate(text, 1):
        if not record:
            first = number
        record += line
        if layout.csv.newlines_in_values and record.count(b'"') % 2:
            continue  # the line ends within quotes
        if record.strip(b"\r\n"):
            if offset >= start and not header:
                yield first, record
            header = False
        offset += len(record)
        record = b""
    if record:
        yield first, record


def _fails(layout: Layout, records: list[Record]) -> bool:
    try:
        table = layout.parse(b"".join(record for _, record in records))
    except pa.ArrowInvalid:
        return True
    missing = 0 if layout.id is None else table[layout.id].null_count
    return bool(missing or table.num_rows < len(records))


def _first_fault(layout: Layout, records: list[Record]) -> tuple[int, str]:
    place = first_failing(lambda start, stop: _fails(layout, records[start:stop]), len(records))
    number, record = records[place]
    if _fails(layout, [(number, record)]):
        return number, _fault(layout, record)
    # Each line by itself is right, but not all of them together.
    odd = (number for number, record in records if record.count(b'"') % 2)
    return next(odd, number), f"a quoted value goes on in the next line; {_NEWLINES}"


def _fault(layout: Layout, record: bytes) -> str:
    try:
        record.decode()
    except UnicodeDecodeError:
        return "is not UTF-8 text; convert the file to UTF-8"
    ragged: list[pc.InvalidRow] = []

    def on_ragged(row: pc.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    texts = replace(layout, types=dict.fromkeys(layout.names, pa.string()))
    values = texts.parse(record, on_ragged=on_ragged)
    if ragged:
        return _wrong_count(layout, record, ragged[0])
    for name, arrow in layout.types.items():
        try:
            column = layout.parse(record, only=name)[name]
        except pa.ArrowInvalid:
            return _wrong_value(name, arrow, values[name][0].as_py())
        if name == layout.id and column.null_count:
            return f"column {name!r}: the id is missing; fill it in, or name another data.id"
    return "cannot be read"


def _wrong_count(layout: Layout, record: bytes, row: pc.InvalidRow) -> str:
    if record.count(b'"') % 2 and not layout.csv.newlines_in_values:
        advice = _NEWLINES
    else:
        advice = f"correct it, or quote values that hold {layout.csv.delimiter!r}"
    return f"has {row.actual_columns} values, the header {row.expected_columns}; {advice}"


def _wrong_value(name: str, arrow: pa.DataType, value: str) -> str:
    if pa.types.is_integer(arrow):
        kind, types = "a whole number of 64 bits", "float32 or string"
    elif pa.types.is_floating(arrow):
        kind, types = "a number", "string"
    elif pa.types.is_boolean(arrow):
        kind, types = "true or false", "string"
    else:
        kind, types = "a date or time as in the rows before", "string"
    shown = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    return (
        f"column {name!r}: {shown!r} is not {kind}; set data.types.{name}={types}, "
        "or add the value to data.csv.missing"
    )
