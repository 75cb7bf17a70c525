"""``parquet``: Parquet files, with single values and lists of one length as columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import SourceFile, find_files, open_file
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import ID, Fragment, Skip, Source
from pipelines.ingest.sources.columns import (
    check_columns,
    convert,
    describe,
    features_of,
    first_failing,
    ids_of,
    number_rows,
    scalar_type,
)
from pipelines.ingest.sources.lists import fixed_size, is_list, list_type
from pipelines.secrets import shown

__all__ = ["Parquet"]

FRAGMENT_BYTES = 32 << 20
_SAMPLE_ROWS = 1000


class Parquet(Source):
    """Files with the same columns in the same order. A fragment is one or more row groups."""

    def __init__(self, config: DataConfig) -> None:
        """Read the files' footers, and some rows to learn how long lists are.

        Raises:
            InputError: naming the file, or the field of the configuration, that is wrong.
        """
        self._files = find_files(config.path or [], (".parquet",))
        self._groups: list[list[tuple[int, int]]] = []
        """Rows and bytes of each file's row groups."""
        first: pa.Schema | None = None
        sample: pa.Table | None = None
        for file in self._files:
            with _open(file) as opened:
                if first is None:
                    first = opened.schema_arrow
                _check_same(file, opened.schema_arrow, self._files[0], first)
                self._groups.append(_row_groups(opened))
                if sample is None and opened.metadata.num_rows:
                    batches = opened.iter_batches(_SAMPLE_ROWS, use_threads=False)
                    found = (batch for batch in batches if batch.num_rows)
                    sample = pa.Table.from_batches([next(found)])
        where = shown(self._files[0].url)
        if sample is None:
            raise InputError(f"{where}: has no rows; give files with some")
        self._row_bytes = max(1, sample.nbytes // sample.num_rows)
        self._id = check_columns(config, sample.column_names, where)
        features = {
            name: _feature(config, name, sample[name], where) for name in sample.column_names
        }
        if self._id is not None and features[self._id].shape:
            raise InputError(f"data.id: column {self._id!r} of {where} holds lists; name another")
        self.features = features_of(list(features.values()))
        self.label = config.label
        self.ids_are_unique = self._id is None
        self.description = describe(config, self._files)

    def fragments(self) -> list[Fragment]:
        """Consecutive row groups of a file, as many as fit; a larger one is read in pieces."""
        fragments: list[Fragment] = []
        for place, file in enumerate(self._files):
            sizes = [max(size, rows * self._row_bytes) for rows, size in self._groups[place]]
            for start, stop in _grouped(sizes):
                rows = max(rows for rows, _ in self._groups[place][start:stop])
                total = sum(sizes[start:stop])
                # Rows in one piece: all of them, unless it is a single row group that is too large.
                piece = max(1, rows * FRAGMENT_BYTES // total if total > FRAGMENT_BYTES else rows)
                name = f"{shown(file.url)} row group {start}"
                name += f" to {stop - 1}" if stop - start > 1 else ""
                fragments.append(Fragment(len(fragments), name, (place, start, stop, piece)))
        return fragments

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The row groups' rows; nothing is skipped.

        Raises:
            InputError: naming file, row (from 0, in the whole file) and column of a bad value.
        """
        place, start, stop, piece = fragment.place
        file = self._files[place]
        before = sum(rows for rows, _ in self._groups[place][:start])
        with _open(file) as opened:
            if stop - start > 1:
                yield pa.concat_tables(
                    list(self._tables(file, opened, start, stop, piece, before))
                ).combine_chunks()
            else:
                yield from self._tables(file, opened, start, stop, piece, before)

    def _tables(
        self,
        file: SourceFile,
        opened: pq.ParquetFile,
        start: int,
        stop: int,
        piece: int,
        before: int,
    ) -> Iterator[pa.Table]:
        for group in range(start, stop):
            row = 0
            for batch in opened.iter_batches(piece, row_groups=[group], use_threads=False):
                table = pa.Table.from_batches([batch])
                made = number_rows(f"{file.name}:{group}", row, table.num_rows)
                yield self._table(file, table, before + row, made)
                row += table.num_rows
            before += row

    def _table(self, file: SourceFile, raw: pa.Table, before: int, made: pa.Array) -> pa.Table:
        ids = made
        if self._id is not None:
            ids = ids_of(raw[self._id])
            if ids.null_count:
                row = before + ids.is_null().index(True).as_py()
                raise InputError(
                    f"{shown(file.url)}: row {row}: column {self._id!r}: the id is missing; "
                    "fill it in, or name another data.id"
                )
        columns = [
            self._column(file, feature, raw[feature.name], before) for feature in self.features[1:]
        ]
        return pa.table([ids, *columns], schema=self.schema)

    def _column(
        self, file: SourceFile, feature: Feature, column: pa.ChunkedArray, before: int
    ) -> pa.ChunkedArray:
        try:
            return _converted(feature, column)
        except pa.ArrowInvalid:
            pass

        def fails(start: int, stop: int) -> bool:
            try:
                _converted(feature, column.slice(start, stop - start))
            except pa.ArrowInvalid:
                return True
            return False

        row = first_failing(fails, len(column))
        where = f"{shown(file.url)}: row {before + row}: column {feature.name!r}"
        value = column[row].as_py()
        if not feature.shape:
            other = "string" if feature.dtype == "float32" else "float32 or string"
            raise InputError(
                f"{where}: {value!r} is no {feature.dtype}; set data.types.{feature.name}={other}"
            )
        if value is None:
            raise InputError(f"{where}: the list is missing; fill it in, or leave the row out")
        if len(value) != feature.elements:
            raise InputError(
                f"{where}: holds {len(value)} numbers, the first row {feature.elements}; "
                "make all lists as long"
            )
        raise InputError(
            f"{where}: holds a number that is missing or no {feature.dtype}; "
            "fill it in, or leave the row out"
        )


@contextmanager
def _open(file: SourceFile) -> Iterator[pq.ParquetFile]:
    with open_file(file.url) as opened:
        try:
            with pq.ParquetFile(opened) as parquet:
                yield parquet
        except (pa.ArrowException, OSError) as error:
            reason = shown(" ".join(str(error).split()))
            if "Expected all lists" in reason:
                # Arrow's own fixed-size lists: it writes missing ones, but does not read them.
                raise InputError(
                    f"{shown(file.url)}: a list of a fixed-size list column is missing; fill it in"
                ) from None
            raise InputError(
                f"{shown(file.url)}: is not a readable Parquet file (truncated?): {reason}"
            ) from None


def _row_groups(opened: pq.ParquetFile) -> list[tuple[int, int]]:
    groups = (opened.metadata.row_group(index) for index in range(opened.num_row_groups))
    return [(group.num_rows, group.total_byte_size) for group in groups]


def _grouped(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """The ranges of consecutive row groups that together hold up to FRAGMENT_BYTES."""
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > FRAGMENT_BYTES:
            yield start, index
            start, total = index, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _check_same(file: SourceFile, schema: pa.Schema, other: SourceFile, first: pa.Schema) -> None:
    if schema.names != first.names:
        names = sorted(set(schema.names) ^ set(first.names))
        differs = f"column {names[0]!r} is in one only" if names else "their order differs"
        raise InputError(
            f"{shown(file.url)}: its columns are not those of {shown(other.url)}: {differs}"
        )
    for name, here, there in zip(schema.names, schema.types, first.types, strict=True):
        if here != there:
            raise InputError(
                f"{shown(file.url)}: column {name!r} holds {here}, "
                f"but {there} in {shown(other.url)}; convert one of them"
            )


def _feature(config: DataConfig, name: str, column: pa.ChunkedArray, where: str) -> Feature:
    wanted = config.types.get(name)
    dtype: Literal["float32", "int64", "uint8", "string"] | None
    if not is_list(column.type):
        dtype = scalar_type(column.type)
        if dtype is not None:
            return Feature(name=name, dtype="string" if name == ID else wanted or dtype)
    elif (dtype := list_type(column.type)) is not None:
        if wanted == "string":
            raise InputError(f"data.types.{name}: lists cannot be strings; {where} holds lists")
        value: list[Any] | None = column[0].as_py()
        if not value:
            raise InputError(
                f"{where}: row 0: column {name!r}: the list is missing or empty; "
                "fill it in, or leave the row out"
            )
        return Feature(name=name, dtype=wanted or dtype, shape=(len(value),))
    raise InputError(
        f"{where}: column {name!r} holds {column.type}, which is not supported; "
        "leave it out or convert it"
    )


def _converted(feature: Feature, column: pa.ChunkedArray) -> pa.ChunkedArray:
    if feature.shape or feature.dtype == "uint8":
        return fixed_size(column, feature)
    return convert(column, feature.dtype)
