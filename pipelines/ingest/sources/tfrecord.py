"""``tfrecord``: TFRecord files of tf.train.Example, plain or gzip, as TensorFlow writes them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.files import find_files
from pipelines.ingest.sources.base import ID, Fragment, Skip, Source
from pipelines.ingest.sources.columns import check_columns, describe, features_of, ids_of
from pipelines.ingest.sources.tf_columns import Gatherer, gather, infer_columns, retyped
from pipelines.ingest.sources.tf_example import read_records
from pipelines.secrets import shown

__all__ = ["PIECE_BYTES", "TfRecord"]

PIECE_BYTES = 32 << 20
"""A file is read in tables of this size: of its records, or of its lists if they are larger."""

_SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz", ".gz")


class TfRecord(Source):
    """One fragment per file, since nothing tells where in a file a record begins.

    The columns are the features found in the first 1,000 records (or 32 MiB) of the first file,
    sorted by name: an int64 list of one value becomes an int64, a float list a float32, a byte
    list a string; a list of n > 1 numbers gets the shape (n,). ``data.types`` changes a column's
    type, never its length. A record may lack a scalar, which is then missing, but not a list.

    ``example_id`` is the column that ``data.id`` names (which stays a column of its own), else the
    column of that name, else ``FILE:RECORD``, records counted from 0.
    """

    def __init__(self, config: DataConfig) -> None:
        """Find the files, and look at the first one's first records.

        Raises:
            InputError: if that finds nothing, or not what ``config`` names.
        """
        assert config.path is not None  # the configuration sees to it
        files = find_files(config.path, _SUFFIXES)
        self._places = [(file.url, file.name) for file in files]
        where = files[0].url
        seen = infer_columns(where)
        self._id = check_columns(config, [column.name for column in seen], where)
        self._columns = [retyped(column, config.types, where) for column in seen]
        for column in self._columns:
            if column.name == self._id and column.is_list:
                raise InputError(
                    f"data.id: '{self._id}' is a list in {where}; name a column of single values"
                )
        self.features = features_of([column.feature for column in self._columns])
        self.label = config.label
        self.ids_are_unique = self._id is None
        self.description = describe(config, files)

    def fragments(self) -> list[Fragment]:
        """The files."""
        return [
            Fragment(number, name, (url, name, PIECE_BYTES))
            for number, (url, name) in enumerate(self._places)
        ]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The file's records, about ``PIECE_BYTES`` at a time."""
        url, name, piece_bytes = fragment.place
        # Small integers take a byte in a record, but eight in a table.
        list_bytes = sum(8 * column.elements for column in self._columns if column.is_list)
        columns, first, size, record = self._gatherers(), 1, 0, 0
        for record, data in enumerate(read_records(url), start=1):
            gather(data, columns, f"{shown(url)}: record {record}")
            size += max(len(data), list_bytes)
            if size >= piece_bytes:
                yield self._table(columns, url, name, first, record)
                columns, first, size = self._gatherers(), record + 1, 0
        if first <= record:
            yield self._table(columns, url, name, first, record)

    def _gatherers(self) -> list[Gatherer]:
        return [Gatherer(column) for column in self._columns]

    def _table(
        self, columns: list[Gatherer], url: str, name: str, first: int, last: int
    ) -> pa.Table:
        arrays = {each.column.name: each.to_arrow(url, first) for each in columns}
        if self._id is None:
            places = pa.array(np.arange(first - 1, last)).cast(pa.string())
            ids = pc.binary_join_element_wise(pa.scalar(f"{name}:"), places, "")
        else:
            ids = ids_of(arrays[self._id])
            if ids.null_count:
                record = first + ids.is_null().index(True).as_py()
                raise InputError(
                    f"{shown(url)}: record {record}: has no '{self._id}', which names the example; "
                    "give it one, or name another column in data.id"
                )
        arrays[ID] = ids
        return pa.table([arrays[field.name] for field in self.schema], schema=self.schema)
