"""Feature transformation: statistics fitted once over the train split, baked into the model."""

import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

from pipelines.config import parse_config
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.tf_metadata import SCHEMA_NAME
from pipelines.workloads import Workload, get_workload
from tf_pipeline.data import list_columns

__all__ = ["fit_transform", "load_transform", "preprocessing_fn", "raw_feature_spec"]

Tensors = dict[str, tf.Tensor]


def preprocessing_fn(inputs: Tensors, custom_config: dict[str, Any]) -> Tensors:
    """TensorFlow Transform's entry point: raw columns to the workload's features and target."""
    config = parse_config(custom_config["config"], "TFX Transform")
    dataset = Dataset.open(Path(custom_config["dataset"]))
    return _preprocess(inputs, get_workload(config, dataset.manifest))


def fit_transform(workload: Workload, dataset: Dataset, output: Path) -> None:
    """Fit the transform on the train split and apply it to every split, outside a DAG.

    Writes ``output/transform_fn`` for ``load_transform``, and gzipped TFRecords of transformed
    examples under ``output/Split-<split>``, as TFX's Transform lays them out.
    """
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tfx_bsl.public.tfxio import TensorAdapterConfig
    from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromSchema

    schema = _schema_of(dataset, workload.columns)
    batches = {
        split: [
            list_columns(batch)
            for batch in dataset.table(split).select(workload.columns).to_batches()
        ]
        for split in dataset.manifest.split_shares
    }
    adapter = TensorAdapterConfig(
        batches["train"][0].schema, InferTensorRepresentationsFromSchema(schema)
    )

    def preprocess(inputs: Tensors) -> Tensors:
        return _preprocess(inputs, workload)

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


def raw_feature_spec(
    dataset: Dataset, columns: tuple[str, ...]
) -> dict[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]:
    """How columns of the dataset are parsed from ``tf.Example``s: sparse, if values may miss."""
    from tensorflow_transform.tf_metadata import schema_utils

    spec: dict[str, tf.io.FixedLenFeature | tf.io.VarLenFeature]
    spec = schema_utils.schema_as_feature_spec(_schema_of(dataset, columns)).feature_spec
    return spec


def load_transform(folder: Path) -> Callable[[Tensors], Tensors]:
    """The fitted transform, as a layer that an exported model can carry."""
    return tft.TFTransformOutput(str(folder)).transform_features_layer()


def _preprocess(inputs: Tensors, workload: Workload) -> Tensors:
    side = import_module(f"tf_pipeline.workloads.{workload.name}")
    config = workload.transform_config()
    transformed: Tensors = side.preprocess(inputs, config, side.fit(inputs, config))
    return transformed


def _schema_of(dataset: Dataset, columns: tuple[str, ...]) -> schema_pb2.Schema:
    """The dataset's contract, less the columns that the workload does not read."""
    contract = text_format.Parse((dataset.folder / SCHEMA_NAME).read_text(), schema_pb2.Schema())
    read = [feature for feature in contract.feature if feature.name in columns]
    del contract.feature[:]
    contract.feature.extend(read)
    return contract


def _encode(batch: pa.RecordBatch, _unary_passthrough: Any) -> list[bytes]:
    return RecordBatchToExamplesEncoder().encode(batch)
