"""Arrow alone: a scan of Parquet shards; and passes over one uncompressed, mapped Arrow file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from benchmarks.contestant import Measures, respond, timed

_TABLE = "table.arrow"
_GATHERED_ROWS = 16_384
"""As many at a time as Tandem's reader takes."""


def prepare(shards: list[str], folder: str, columns: list[str]) -> Measures:
    """Write the shards' rows as an uncompressed Arrow file too, strings as int32 codes."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    schema = pq.read_schema(shards[0])
    strings = [name for name in columns if pa.types.is_string(schema.field(name).type)]
    table = pa.concat_tables(
        pq.read_table(shard, columns=columns, read_dictionary=strings) for shard in shards
    ).unify_dictionaries()
    with pa.ipc.new_file(Path(folder) / _TABLE, table.schema) as writer:
        writer.write_table(table)
    return {"rows": table.num_rows}


def scan_parquet(shards: list[str], columns: list[str], batch_size: int, epochs: int) -> Measures:
    """Scan the Parquet shards ``epochs`` times, in stored order, on all cores."""
    measures: Measures = {}
    rows = 0
    dataset = pads.dataset(shards, format="parquet")
    with timed(measures):
        for _ in range(epochs):
            for batch in dataset.to_batches(columns=columns, batch_size=batch_size):
                rows += batch.num_rows
    return measures | {"rows": rows}


def scan_mapped(folder: str, columns: list[str], batch_size: int, epochs: int) -> Measures:
    """Copy every batch of the mapped Arrow file out as NumPy arrays, in stored order."""
    measures: Measures = {}
    rows = 0
    with pa.memory_map(str(Path(folder) / _TABLE)) as mapped:
        table = pa.ipc.open_file(mapped).read_all().select(columns)
        with timed(measures):
            for _ in range(epochs):
                for batch in table.to_batches(max_chunksize=batch_size):
                    copied = [np.array(_numbers(column)) for column in batch.columns]
                    rows += len(copied[0])
    return measures | {"rows": rows}


def take_mapped(folder: str, columns: list[str], batch_size: int, epochs: int) -> Measures:
    """Take batches of the mapped Arrow file in random order, as NumPy arrays."""
    measures: Measures = {}
    rows = 0
    generator = np.random.default_rng(0)
    with pa.memory_map(str(Path(folder) / _TABLE)) as mapped:
        table = pa.ipc.open_file(mapped).read_all().select(columns)
        with timed(measures):
            for _ in range(epochs):
                order = generator.permutation(table.num_rows)
                for start in range(0, len(order), _GATHERED_ROWS):
                    taken = table.take(pa.array(order[start : start + _GATHERED_ROWS]))
                    for batch in taken.combine_chunks().to_batches(max_chunksize=batch_size):
                        arrays = [_numbers(column) for column in batch.columns]
                        rows += len(arrays[0])
    return measures | {"rows": rows}


def _numbers(column: pa.Array) -> npt.NDArray[np.generic]:
    if pa.types.is_dictionary(column.type):
        column = column.indices
    return np.asarray(column.to_numpy(zero_copy_only=False))


if __name__ == "__main__":
    actions: dict[str, Callable[..., Measures]] = {
        "prepare": prepare,
        "scan_parquet": scan_parquet,
        "scan_mapped": scan_mapped,
        "take_mapped": take_mapped,
    }
    respond(actions, ["numpy", "pyarrow"])
