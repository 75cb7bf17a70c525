"""The TFRecord source, which is written without TensorFlow, against files of TensorFlow's own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.sources.tfrecord import TfRecord


def example(number: int) -> tf.train.Example:
    generator = np.random.default_rng(number)
    pixels = generator.standard_normal(64).astype(np.float32)
    tokens = generator.integers(-(1 << 63), (1 << 63) - 1, 9)
    features = {
        "pixels": tf.train.Feature(float_list=tf.train.FloatList(value=pixels)),
        "tokens": tf.train.Feature(int64_list=tf.train.Int64List(value=tokens)),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number - 5])),
        "weight": tf.train.Feature(float_list=tf.train.FloatList(value=[number / 3])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"№ {number}".encode()])),
    }
    if number % 4 == 3:
        features["name"] = tf.train.Feature()
        del features["weight"]
    return tf.train.Example(features=tf.train.Features(feature=features))


def write(path: Path, compression: str, count: int = 40) -> DataConfig:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for number in range(count):
            writer.write(example(number).SerializeToString())
    return DataConfig(source="tfrecord", path=str(path), label="label")


def read(config: DataConfig) -> pa.Table:
    source = TfRecord(config)
    [fragment] = source.fragments()
    return pa.concat_tables(source.read(fragment, pytest.fail))


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_what_tensorflow_writes_is_read(tmp_path: Path, compression: str) -> None:
    table = read(write(tmp_path / "some.data", compression))

    dataset = tf.data.TFRecordDataset([str(tmp_path / "some.data")], compression)
    parsed = dataset.map(
        lambda record: tf.io.parse_single_example(
            record,
            {
                "pixels": tf.io.FixedLenFeature([64], tf.float32),
                "tokens": tf.io.FixedLenFeature([9], tf.int64),
                "label": tf.io.FixedLenFeature([], tf.int64),
                "weight": tf.io.FixedLenFeature([], tf.float32, -1.0),
                "name": tf.io.FixedLenFeature([], tf.string, ""),
            },
        )
    )
    rows = list(parsed.as_numpy_iterator())
    assert table["example_id"].to_pylist() == [f"some.data:{number}" for number in range(40)]
    assert table["weight"].null_count == table["name"].null_count == 10
    for name in ("pixels", "tokens"):
        flat = table[name].combine_chunks().flatten().to_numpy()
        np.testing.assert_array_equal(flat, np.concatenate([row[name] for row in rows]))
    assert table["label"].to_pylist() == [row["label"] for row in rows]
    assert pc.fill_null(table["weight"], -1.0).to_pylist() == [row["weight"] for row in rows]
    assert pc.fill_null(table["name"], "").to_pylist() == [row["name"].decode() for row in rows]


def test_a_compression_that_is_not_known_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path / "some.data", "ZLIB")

    with pytest.raises(InputError) as caught:
        TfRecord(config)
    assert str(caught.value) == (
        f"{tmp_path}/some.data: record 1 is damaged (checksum), or this is not a TFRecord file"
    )
