"""Tandem's shared reader: shuffled batches of all columns, gathered from its mapped cache."""

from pathlib import Path

from benchmarks.contestant import Measures, respond, timed
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Split
from pipelines.ingest.reader import BatchStream

SPLIT: Split = "train"


def read(
    dataset: str, batch_size: int, shuffle_buffer: int, epochs: int, columns: list[str]
) -> Measures:
    """An epoch on an empty cache (checksums, decoding), and the mean of ``epochs`` after it."""
    measures: Measures = {}
    with timed(measures, "first_epoch_"):
        mapped = mapped_columns(Dataset.open(Path(dataset)), SPLIT)
        stream = BatchStream(
            {name: mapped[name] for name in columns},
            global_batch_size=batch_size,
            rank=0,
            workers=1,
            seed=0,
            shuffle_buffer=shuffle_buffer,
        )
        steps = len(mapped[columns[0]]) // batch_size
        batches = stream.batches()
        for _ in range(steps):
            next(batches)
    rows = 0
    with timed(measures):
        for _ in range(steps * epochs):
            rows += len(next(batches)[columns[0]])
    return measures | {"rows": rows}


if __name__ == "__main__":
    respond({"read": read}, ["numpy", "pyarrow"])
