"""Batches of (features, target) as a ``tf.data.Dataset``."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from pipelines.config import Config
from pipelines.ingest.manifest import Split
from pipelines.ingest.reader import SharedBatches
from pipelines.worker import Worker
from pipelines.workloads import TARGET, TensorSpec, Workload

__all__ = ["list_columns", "open_dataset"]

_SHUFFLE_BUFFER_EXAMPLES = 10_000
_EXAMPLE_TYPES = {"string": pa.binary(), "uint8": pa.int64()}


def open_dataset(
    config: Config,
    workload: Workload,
    split: Split,
    worker: Worker,
    transformed: Path | None = None,
    start_step: int = 0,
) -> tf.data.Dataset:
    """This worker's batches: features by name, as the workload states them, and the target.

    ``train`` never ends, and its batches all have ``batch_size_per_worker`` examples; it begins
    where a run is after ``start_step`` steps. ``eval`` is the whole split once, for every worker.
    With ``transformed`` the examples come from the folder that the framework's own transform wrote,
    else from the reader that both frameworks share.
    """
    if transformed is None:
        batches = _shared_stream(config, workload, split, worker, start_step)
    else:
        batches = _transformed_records(config, workload, split, worker, transformed, start_step)
    return batches.prefetch(tf.data.AUTOTUNE)


def list_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch as TFX's Arrow code takes it: every column a list, a scalar's of length one.

    A missing value is a missing list, since TFX counts an empty one as present. ``tf.Example``
    knows no other types than float32, int64 and bytes.

    Going through Arrow also keeps zeros: TFX's own Parquet reader builds each ``tf.Example`` from
    a dict and drops every scalar that is falsy, so that class 0 would arrive without its label.
    """
    columns = []
    for column in batch.columns:
        if pa.types.is_fixed_size_list(column.type):
            offsets = np.arange(len(column) + 1) * column.type.list_size
            values = column.flatten()
        else:
            offsets = np.append(0, column.is_valid().to_numpy(zero_copy_only=False).cumsum())
            values = column.drop_null()
        stored = _EXAMPLE_TYPES.get(str(values.type), values.type)
        columns.append(
            pa.ListArray.from_arrays(
                pa.array(offsets.astype(np.int32)), values.cast(stored), mask=column.is_null()
            )
        )
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _shared_stream(
    config: Config, workload: Workload, split: Split, worker: Worker, start_step: int
) -> tf.data.Dataset:
    size = config.training.batch_size_per_worker if split == "train" else None

    def batched(spec: TensorSpec) -> tf.TensorSpec:
        return tf.TensorSpec((size, *spec.shape), spec.dtype)

    features = {name: batched(spec) for name, spec in workload.features.items()}
    signature = (features, batched(workload.target))
    # Opened here, in the build phase: inside the generator tf.data would turn an altered shard's
    # InputError into an error of its own.
    stream = SharedBatches(config, workload, split, worker, start_step)
    batches = tf.data.Dataset.from_generator(lambda: stream, output_signature=signature)
    return _endless(batches) if split == "train" else batches


def _transformed_records(
    config: Config,
    workload: Workload,
    split: Split,
    worker: Worker,
    folder: Path,
    start_step: int,
) -> tf.data.Dataset:
    size = config.training.batch_size_per_worker
    files = tf.data.Dataset.list_files(str(folder / f"Split-{split}" / "*"), shuffle=False)
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    if split == "train":
        records = records.shard(worker.workers, worker.rank)
        records = records.shuffle(_SHUFFLE_BUFFER_EXAMPLES, seed=config.training.seed).repeat()
    specs = {**workload.features, TARGET: workload.target}
    stored = {name: tf.io.FixedLenFeature(spec.shape, spec.dtype) for name, spec in specs.items()}

    def parse(serialized: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        features = tf.io.parse_example(serialized, stored)
        target = features.pop(TARGET)
        return features, target

    batches = records.batch(size, drop_remainder=split == "train")
    # What a run has done before is read again, since TFRecords must be, but not parsed.
    batches = batches.skip(start_step * worker.replicas).map(parse)
    return _endless(batches) if split == "train" else batches


def _endless(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Say that the batches never end.

    It spares the strategy one collective per step that would ask every worker whether it still
    has data.
    """
    return batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
