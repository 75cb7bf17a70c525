"""Feature transformation: statistics fitted once over the train split, baked into the model."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

from pipelines.ingest.dataset import Dataset
from pipelines.workloads import Vision
from tf_pipeline.data import list_columns

__all__ = ["fit_transform", "load_transform", "preprocessing_fn", "transform_config"]

Tensors = dict[str, tf.Tensor]


def preprocessing_fn(inputs: Tensors, custom_config: dict[str, Any]) -> Tensors:
    """TensorFlow Transform's entry point: raw columns to model-ready ones.

    The feature is standardised by mean and standard deviation of all its elements over the train
    split; other columns than feature and label are dropped.
    """
    feature, label = custom_config["feature"], custom_config["label"]
    standardised = tft.scale_to_z_score(inputs[feature])
    return {
        feature: tf.reshape(standardised, [-1, *custom_config["shape"]]),
        label: tf.reshape(inputs[label], [-1]),
    }


def transform_config(workload: Vision) -> dict[str, Any]:
    """What ``preprocessing_fn`` needs to know of the workload, as TFX can carry it."""
    return {
        "feature": workload.feature,
        "label": workload.label,
        "shape": list(workload.image_shape),
    }


def fit_transform(workload: Vision, dataset: Dataset, output: Path) -> None:
    """Fit the transform on the train split and apply it to every split, outside a DAG.

    Writes ``output/transform_fn`` for ``load_transform``, and gzipped TFRecords of transformed
    examples under ``output/Split-<split>``, as TFX's Transform lays them out.
    """
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import schema_utils
    from tfx_bsl.public.tfxio import TensorAdapterConfig
    from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromSchema

    schema = schema_utils.schema_from_feature_spec(
        {
            workload.feature: tf.io.FixedLenFeature((workload.elements_per_example,), tf.float32),
            workload.label: tf.io.FixedLenFeature((1,), tf.int64),
        }
    )
    columns = [workload.feature, workload.label]
    batches = {
        split: [list_columns(batch) for batch in dataset.table(split).select(columns).to_batches()]
        for split in dataset.manifest.split_shares
    }
    adapter = TensorAdapterConfig(
        batches["train"][0].schema, InferTensorRepresentationsFromSchema(schema)
    )
    custom_config = transform_config(workload)

    def preprocess(inputs: Tensors) -> Tensors:
        return preprocessing_fn(inputs, custom_config)

    with (
        tempfile.TemporaryDirectory() as temporary,
        tft_beam.Context(temp_dir=temporary),
        beam.Pipeline() as pipeline,
    ):
        raw = {split: pipeline | split >> beam.Create(rows) for split, rows in batches.items()}
        transform_fn = (raw["train"], adapter) | tft_beam.AnalyzeDataset(preprocess)
        transform_fn | tft_beam.WriteTransformFn(str(output / "transform_fn"))
        for split, rows in raw.items():
            apply = tft_beam.TransformDataset(output_record_batches=True)
            transformed, _ = ((rows, adapter), transform_fn) | f"Transform {split}" >> apply
            encoded = transformed | f"Encode {split}" >> beam.FlatMapTuple(_encode)
            files = str(output / f"Split-{split}" / "transformed_examples")
            write = beam.io.WriteToTFRecord(files, file_name_suffix=".gz")
            encoded | f"Write {split}" >> write


def load_transform(folder: Path) -> Callable[[Tensors], Tensors]:
    """The fitted transform, as a layer that an exported model can carry."""
    return tft.TFTransformOutput(str(folder)).transform_features_layer()


def _encode(batch: pa.RecordBatch, _unary_passthrough: Any) -> list[bytes]:
    return RecordBatchToExamplesEncoder().encode(batch)
