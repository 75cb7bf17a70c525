"""LitData: an optimized dataset through its StreamingDataLoader."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset, optimize

from benchmarks.contestant import Measures, respond, timed
from benchmarks.rivals.rows import samples


def prepare(shards: list[str], folder: str, columns: list[str]) -> Measures:
    """Convert the shards' rows, uncompressed, to chunks of 64 MB, as LitData's guide has it."""
    optimize(
        fn=partial(_samples, columns=columns),
        inputs=shards,
        output_dir=folder,
        chunk_bytes="64MB",
        num_workers=1,
    )
    return {"rows": len(StreamingDataset(folder))}


def read(folder: str, batch_size: int, workers: int) -> Measures:
    """Two shuffled epochs; the second one counts."""
    dataset = StreamingDataset(folder, shuffle=True)
    loader = StreamingDataLoader(dataset, batch_size=batch_size, num_workers=workers)
    measures: Measures = {}
    with timed(measures, "first_epoch_"):
        for _ in loader:
            pass
    rows = 0
    with timed(measures):
        for batch in loader:
            rows += len(next(iter(batch.values())))
    return measures | {"rows": rows}


def _samples(shard: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    yield from samples(shard, columns)


if __name__ == "__main__":
    respond({"prepare": prepare, "read": read}, ["litdata", "numpy", "torch"])
