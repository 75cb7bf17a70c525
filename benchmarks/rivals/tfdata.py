"""TensorFlow: TFRecords of tf.Example through tf.data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from benchmarks.contestant import Measures, respond, timed
from benchmarks.rivals.rows import column_types

_DTYPES = {"float32": tf.float32, "int64": tf.int64, "string": tf.string}


def prepare(shards: list[str], folder: str, columns: list[str]) -> Measures:
    """Write a TFRecord file, uncompressed, per shard."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    encoder = RecordBatchToExamplesEncoder()
    rows = 0
    for number, shard in enumerate(shards):
        table = pq.read_table(shard, columns=columns).combine_chunks()
        with tf.io.TFRecordWriter(f"{folder}/part-{number:05d}.tfrecord") as writer:
            for batch in table.to_batches():
                lists = [_one_each(column) for column in batch.columns]
                for example in encoder.encode(pa.record_batch(lists, names=columns)):
                    writer.write(example)
                    rows += 1
    return {"rows": rows}


def read(
    shards: list[str], folder: str, columns: list[str], batch_size: int, shuffle_buffer: int
) -> Measures:
    """Two shuffled epochs; the second one counts."""
    types = column_types(shards[0], columns)
    features = {name: tf.io.FixedLenFeature([], _DTYPES[kind]) for name, kind in types.items()}
    batches = (
        tf.data.Dataset.list_files(f"{folder}/*.tfrecord", shuffle=True)
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=tf.data.AUTOTUNE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .shuffle(shuffle_buffer)
        .batch(batch_size)
        .map(
            lambda records: tf.io.parse_example(records, features),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(tf.data.AUTOTUNE)
    )
    measures: Measures = {}
    with timed(measures, "first_epoch_"):
        for _ in batches:
            pass
    rows = 0
    with timed(measures):
        for batch in batches:
            rows += len(batch[columns[0]])
    return measures | {"rows": rows}


def _one_each(column: pa.Array) -> pa.Array:
    """A list of one value per row, as the encoder takes it; missing values are NaN and ""."""
    if pa.types.is_string(column.type):
        column = pc.fill_null(column, "").cast(pa.binary())
    elif column.null_count:
        column = pc.fill_null(column, float("nan"))
    return pa.LargeListArray.from_arrays(np.arange(len(column) + 1), column)


if __name__ == "__main__":
    respond({"prepare": prepare, "read": read}, ["tensorflow", "tfx-bsl"])
