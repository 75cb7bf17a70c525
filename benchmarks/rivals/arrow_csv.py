"""Arrow alone: one streaming pass from CSV to one Parquet file, and nothing checked or hashed."""

from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from benchmarks.contestant import Measures, respond, timed


def convert(csv: str, folder: str, block_bytes: int | None) -> Measures:
    """Convert ``csv``, read in blocks of ``block_bytes`` (None: Arrow's default), with zstd."""
    Path(folder).mkdir(parents=True)
    rows = 0
    measures: Measures = {}
    options = pacsv.ReadOptions(block_size=block_bytes)
    with (
        timed(measures),
        pacsv.open_csv(csv, read_options=options) as batches,
        pq.ParquetWriter(
            Path(folder) / "all.parquet", batches.schema, compression="zstd"
        ) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return measures | {"rows": rows}


if __name__ == "__main__":
    respond({"convert": convert}, ["pyarrow"])
