"""CSV text: opened, cut where lines end, and parsed."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc

from pipelines.data_config import CsvConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile, open_file
from pipelines.secrets import shown

__all__ = ["Layout", "is_compressed", "open_text", "pieces_of", "read_names"]

_CODECS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_BUFFER = 1 << 20
_HEAD = 1 << 16


@dataclass(frozen=True)
class Layout:
    """How text becomes columns."""

    csv: CsvConfig
    names: tuple[str, ...]
    """The columns, in order."""
    types: dict[str, pa.DataType]
    """What they are parsed as; what is not in here is inferred."""
    id: str | None = None
    """The column in which no value may be missing."""

    def parse(
        self,
        text: bytes,
        *,
        has_header: bool = False,
        only: str | None = None,
        on_ragged: Callable[[pc.InvalidRow], str] | None = None,
    ) -> pa.Table:
        """The whole lines of ``text`` as a table.

        Args:
            text: whole lines.
            has_header: whether the first of them names the columns.
            only: the one column to convert, rather than all.
            on_ragged: called with rows that have too many or too few values.

        Raises:
            pyarrow.ArrowInvalid: if a row or a value does not fit.
        """
        if b"\n" not in text:
            text += b"\n"  # Arrow refuses a header alone without it
        return pc.read_csv(
            pa.BufferReader(text),
            # Fragments are read in parallel already, and each becomes one chunk.
            read_options=pc.ReadOptions(
                use_threads=False,
                block_size=len(text),
                column_names=None if has_header else self.names,
            ),
            parse_options=self._parse_options(on_ragged),
            convert_options=self._convert_options([only] if only else None),
        )

    def stream(
        self, text: io.BufferedReader, block_bytes: int, only: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A whole file's rows in batches of about ``block_bytes`` of text, header left out.

        Raises:
            pyarrow.ArrowInvalid: if a row or a value does not fit.
        """
        if len(text.peek().splitlines()) < 2:
            return  # Arrow refuses a header alone if no line break ends it
        with pc.open_csv(
            text,
            read_options=pc.ReadOptions(use_threads=False, block_size=block_bytes),
            parse_options=self._parse_options(None),
            convert_options=self._convert_options(only),
        ) as reader:
            yield from reader

    def _parse_options(self, on_ragged: Callable[[pc.InvalidRow], str] | None) -> pc.ParseOptions:
        return pc.ParseOptions(
            delimiter=self.csv.delimiter,
            newlines_in_values=self.csv.newlines_in_values,
            invalid_row_handler=on_ragged,
        )

    def _convert_options(self, only: list[str] | None) -> pc.ConvertOptions:
        return pc.ConvertOptions(
            column_types=self.types,
            include_columns=only,
            null_values=self.csv.missing,
            strings_can_be_null=True,
        )


def is_compressed(file: SourceFile) -> bool:
    """Whether the file's name says that it must be decompressed, hence read from its start."""
    return _suffix(file) in _CODECS


@contextmanager
def open_text(file: SourceFile) -> Iterator[io.BufferedReader]:
    """A file opened for reading bytes, decompressed if its name says that it is compressed.

    Raises:
        InputError: if it cannot be opened, read or decompressed.
    """
    with open_file(file.url) as opened:
        raw: Any = opened
        if not is_compressed(file):
            yield io.BufferedReader(raw, _BUFFER)
            return
        codec = _CODECS[_suffix(file)]
        try:
            with pa.CompressedInputStream(pa.PythonFile(opened, mode="r"), codec) as raw:
                yield io.BufferedReader(raw, _BUFFER)
        except OSError as error:
            reason = shown(" ".join(str(error).split()))
            raise InputError(
                f"{shown(file.url)}: is truncated or damaged: {reason}; replace it"
            ) from None


def pieces_of(file: SourceFile, start: int, step: int) -> Iterator[tuple[int, bytes]]:
    """The text in pieces of whole lines, each with its offset.

    The piece at an offset owns the lines that begin in the ``step`` bytes from there on, so that
    lines appended to a file never move those before. A plain file gives the piece at ``start``
    alone; a compressed one all of them, from offset 0 of what is decompressed.

    Raises:
        InputError: if the file cannot be read.
    """
    with open_text(file) as text:
        if not is_compressed(file):
            if start:
                text.seek(start - 1)
                position = start - 1 + len(text.readline())
            else:
                position = 0
            yield start, _lines(text, start + step - position)
            return
        position = 0
        for offset in count(0, step):
            lines = _lines(text, offset + step - position)
            if not lines and position < offset + step:
                return
            position += len(lines)
            yield offset, lines


def read_names(file: SourceFile, csv: CsvConfig) -> tuple[str, ...]:
    """The columns that a file's header names.

    Raises:
        InputError: if it has none, or it is not UTF-8.
    """
    with open_text(file) as text:
        head = text.read(_HEAD)
        while b"\n" not in head and (more := text.read(_BUFFER)):
            head += more
    # Only the header matters here: rows may be cut off by the end of what was read.
    try:
        table = Layout(csv, (), {}).parse(head, has_header=True, on_ragged=lambda row: "skip")
        names = tuple(table.column_names)
    except UnicodeDecodeError:
        raise InputError(f"{shown(file.url)}: line 1 is not UTF-8 text; convert the file") from None
    except pa.ArrowInvalid:
        names = ()
    if not names:
        raise InputError(f"{shown(file.url)}: has no header; its first line must name the columns")
    return names


def _suffix(file: SourceFile) -> str:
    return PurePosixPath(shown(file.url)).suffix  # a signed URL goes on behind the name


def _lines(text: io.BufferedReader, size: int) -> bytes:
    """The lines that begin in the next ``size`` bytes, of which the first is a line's beginning."""
    if size <= 0:
        return b""
    lines = text.read(size)
    return lines if lines.endswith(b"\n") else lines + text.readline()
