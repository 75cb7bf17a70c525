"""``csv``: delimited text with a header, plain or compressed."""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.csv as pc

from pipelines.data_config import ColumnType, DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile, find_files
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import ID, Fragment, Skip, Source
from pipelines.ingest.sources.columns import (
    check_columns,
    convert,
    describe,
    features_of,
    ids_of,
    number_rows,
    scalar_type,
)
from pipelines.ingest.sources.csv_faults import find_fault
from pipelines.ingest.sources.csv_text import (
    Layout,
    is_compressed,
    open_text,
    pieces_of,
    read_names,
)
from pipelines.secrets import shown

__all__ = ["Csv"]

FRAGMENT_BYTES = 32 << 20
SAMPLE_BYTES = 8 << 20
_SUFFIXES = (".csv", ".tsv", ".gz", ".bz2", ".zst")
_PARSED = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}


class Csv(Source):
    """Files of text whose first line names the columns, the same in each.

    Types are inferred from the first 8 MiB; a column that is empty there, from its first value.
    Plain files are cut into fragments of 32 MiB; one that is compressed, or whose values hold
    line breaks, is one fragment.
    """

    def __init__(self, config: DataConfig) -> None:
        """Find the files, compare their headers and infer the columns' types.

        Raises:
            InputError: naming the file, or the field of the configuration, that is wrong.
        """
        if not config.csv.delimiter.isascii() or config.csv.delimiter in '"\r\n':
            raise InputError(
                f"data.csv.delimiter: {config.csv.delimiter!r} cannot separate values; "
                "it must be an ASCII character other than a quote or line break"
            )
        self._files = find_files(config.path or [], _SUFFIXES)
        names = _shared_names(self._files, config)
        self._id = check_columns(config, names, shown(self._files[0].url))
        self._layout = Layout(config.csv, names, {})
        inferred = self._infer(config)
        parsed = {
            name: _parsed_as(arrow, config.types.get(name), is_id=name == self._id)
            for name, arrow in inferred.items()
        }
        if self._id == ID:
            parsed[ID] = pa.string()
        self._layout = Layout(config.csv, names, parsed, self._id)
        self._types: dict[str, ColumnType] = {
            name: config.types.get(name) or scalar_type(arrow) or "string"
            for name, arrow in parsed.items()
        }
        self.features = features_of(
            [Feature(name=name, dtype=dtype) for name, dtype in self._types.items()]
        )
        self.label = config.label
        self.ids_are_unique = self._id is None
        self.description = describe(config, self._files)

    def fragments(self) -> list[Fragment]:
        """Ranges of the files' bytes; each owns the lines that begin in it."""
        fragments: list[Fragment] = []
        for place, file in enumerate(self._files):
            whole = is_compressed(file) or self._layout.csv.newlines_in_values
            for start in [0] if whole else range(0, file.size, FRAGMENT_BYTES):
                name = shown(file.url) if whole else f"{shown(file.url)} from byte {start:,}"
                fragments.append(Fragment(len(fragments), name, (place, start, FRAGMENT_BYTES)))
        return fragments

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The fragment's rows; nothing is skipped.

        Raises:
            InputError: naming file and line of what does not fit the header or the types.
        """
        place, start, step = fragment.place
        file = self._files[place]
        read = self._read_stream if self._layout.csv.newlines_in_values else self._read_pieces
        yield from read(file, start, step)

    def _read_pieces(self, file: SourceFile, start: int, step: int) -> Iterator[pa.Table]:
        for offset, text in pieces_of(file, start, step):
            if not text:
                continue
            try:
                parsed = self._layout.parse(text, has_header=offset == 0)
            except pa.ArrowInvalid:
                raise find_fault(file, self._layout, offset) from None
            if _lacks_rows(parsed, text, has_header=offset == 0):
                raise find_fault(file, self._layout, offset)
            if parsed.num_rows:
                yield self._table(file, parsed, offset)

    def _read_stream(self, file: SourceFile, start: int, step: int) -> Iterator[pa.Table]:
        row = 0
        with open_text(file) as text:
            try:
                for batch in self._layout.stream(text, step):
                    yield self._table(file, pa.Table.from_batches([batch]), start, row)
                    row += batch.num_rows
            except pa.ArrowInvalid:
                raise find_fault(file, self._layout) from None

    def _table(self, file: SourceFile, parsed: pa.Table, offset: int, row: int = 0) -> pa.Table:
        if self._id is None:
            ids = number_rows(f"{file.name}:{offset}", row, parsed.num_rows)
        elif parsed[self._id].null_count:
            raise find_fault(file, self._layout, offset)
        else:
            ids = ids_of(parsed[self._id])
        columns = [convert(parsed[name], self._types[name]) for name in self.schema.names[1:]]
        return pa.table([ids, *columns], schema=self.schema)

    def _infer(self, config: DataConfig) -> dict[str, pa.DataType]:
        """What Arrow takes the columns for."""
        inferred = self._sample()
        for name, arrow in inferred.items():
            if pa.types.is_binary(arrow):
                raise find_fault(
                    self._files[0], Layout(config.csv, self._layout.names, {name: pa.string()})
                )
        empty = [
            name
            for name, arrow in inferred.items()
            if pa.types.is_null(arrow) and name not in config.types
        ]
        return inferred | self._first_values(empty)

    def _sample(self) -> dict[str, pa.DataType]:
        for file in self._files:
            with open_text(file) as text:
                # More than a block, so that a row at the block's end is not taken for the last.
                sample = io.BytesIO(text.read(SAMPLE_BYTES + SAMPLE_BYTES // 8))
            try:
                for batch in self._layout.stream(io.BufferedReader(sample), SAMPLE_BYTES):
                    if batch.num_rows:
                        return {field.name: field.type for field in batch.schema}
            except pa.ArrowInvalid:
                raise find_fault(file, self._layout) from None
        raise InputError(f"{shown(self._files[0].url)}: has no rows below its header; add some")

    def _first_values(self, empty: list[str]) -> dict[str, pa.DataType]:
        """What columns without a value in the sample are taken for, from their first values."""
        found: dict[str, pa.DataType] = {}
        texts = Layout(self._layout.csv, self._layout.names, dict.fromkeys(empty, pa.string()))
        for file in self._files:
            pending = [name for name in empty if name not in found]
            if not pending:
                break
            with open_text(file) as text:
                try:
                    for batch in texts.stream(text, SAMPLE_BYTES, pending):
                        for name in [name for name in pending if name not in found]:
                            values = batch[name].drop_null()
                            if len(values):
                                found[name] = _type_of(values)
                        if len(found) == len(empty):
                            break
                except pa.ArrowInvalid:
                    raise find_fault(file, texts) from None
        return found


def _shared_names(files: list[SourceFile], config: DataConfig) -> tuple[str, ...]:
    first = read_names(files[0], config.csv)
    for file in files[1:]:
        names = read_names(file, config.csv)
        if names == first:
            continue
        lacks = ", ".join(name for name in first if name not in names)
        extra = ", ".join(name for name in names if name not in first)
        differences = [f"lacks {lacks}"] * bool(lacks) + [f"has {extra} besides"] * bool(extra)
        raise InputError(
            f"{shown(file.url)}: its columns are not those of {shown(files[0].url)}: "
            f"{' and '.join(differences) or 'their order differs'}"
        )
    return first


def _parsed_as(arrow: pa.DataType, wanted: ColumnType | None, *, is_id: bool) -> pa.DataType:
    """What a column is parsed as, given what Arrow takes it for."""
    if is_id and wanted is None and not pa.types.is_integer(arrow):
        return pa.string()  # numbers with fractions would lose digits, and so be alike
    if wanted != "string" and pa.types.is_date(arrow):
        return pa.timestamp("s")
    if wanted != "string" and (pa.types.is_boolean(arrow) or pa.types.is_timestamp(arrow)):
        return arrow
    return _PARSED[wanted or scalar_type(arrow) or "string"]


def _type_of(texts: pa.Array) -> pa.DataType:
    """What Arrow takes texts for."""
    sink = pa.BufferOutputStream()
    pc.write_csv(pa.table({"texts": texts}), sink)
    return pc.read_csv(pa.BufferReader(sink.getvalue())).schema[0].type


def _lacks_rows(parsed: pa.Table, text: bytes, *, has_header: bool) -> bool:
    """Whether there are fewer rows than lines that are not empty."""
    rows: int = parsed.num_rows + has_header
    ends = text.count(b"\n") + (not text.endswith(b"\n"))
    # Empty lines are rare, and to look for them takes longer than to count the ends of all lines.
    return rows < ends and rows < sum(bool(line.strip(b"\r")) for line in text.split(b"\n"))
