"""The DAG, the TFX way: eight components, ML Metadata, and a cache keyed by all inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from google.protobuf.wrappers_pb2 import StringValue
from tfx import v1 as tfx
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.example_validator import executor as example_validator_executor
from tfx.components.statistics_gen.stats_artifact_utils import load_statistics
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.proto.orchestration.execution_result_pb2 import ExecutorOutput
from tfx.utils.io_utils import SchemaReader
from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

from pipelines.config import Config
from pipelines.dag import DagEnvironment, Stage
from pipelines.errors import InputError
from pipelines.ingest.tf_metadata import ACCEPTED, SCHEMA_NAME
from tf_pipeline.data import list_columns
from tf_pipeline.evaluate import build_eval_config

__all__ = ["STAGE_OF", "ArrowParquetExecutor", "build_pipeline"]

STAGE_OF: Mapping[str, Stage] = {
    "ExampleGen": "validate",
    "SchemaGen": "validate",
    "StatisticsGen": "validate",
    "ExampleValidator": "validate",
    "Transform": "transform",
    "Trainer": "train",
    "Evaluator": "evaluate",
    "Pusher": "push",
}
"""Component -> the stage that both frameworks share."""

_SPLITS = ("train", "eval")


def build_pipeline(config: Config, environment: DagEnvironment) -> tfx.dsl.Pipeline:
    """The DAG from an ingested dataset to a published model, blessed or not published."""
    settings = {
        "config": config.for_steps(),
        "dataset": environment.dataset,
        "workers": environment.workers,
        "cache_key": environment.cache_key,
    }
    example_gen = FileBasedExampleGen(
        input_base=environment.dataset,
        input_config=tfx.proto.Input(
            splits=[
                tfx.proto.Input.Split(name=split, pattern=f"split={split}/*.parquet")
                for split in _SPLITS
            ]
        ),
        custom_config=_keyed(environment.cache_key),
        custom_executor_spec=executor_spec.BeamExecutorSpec(ArrowParquetExecutor),
    ).with_id("ExampleGen")
    examples = example_gen.outputs["examples"]
    schema_gen = _read_contract(
        examples=examples, file=f"{environment.dataset}/{SCHEMA_NAME}"
    ).with_id("SchemaGen")
    schema = schema_gen.outputs["schema"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples, schema=schema)
    example_validator = _ExampleValidator(
        statistics=statistics_gen.outputs["statistics"], schema=schema
    ).with_id("ExampleValidator")
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="tf_pipeline.transform.preprocessing_fn",
        custom_config=settings,
    )
    transform.add_upstream_node(example_validator)
    trainer = tfx.components.Trainer(
        run_fn="tf_pipeline.train.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=tfx.proto.TrainArgs(splits=["train"], num_steps=config.training.steps),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
        custom_config=settings,
    )
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        schema=schema,
        example_splits=["eval"],
        eval_config=build_eval_config(config.workload),
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=environment.serving)
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=environment.artifacts,
        components=[
            example_gen,
            schema_gen,
            statistics_gen,
            example_validator,
            transform,
            trainer,
            evaluator,
            pusher,
        ],
        enable_cache=True,
        beam_pipeline_args=["--runner=DirectRunner", "--direct_num_workers=1"],
    )


def _keyed(cache_key: str) -> example_gen_pb2.CustomConfig:
    """The key as a property that the executor ignores, but TFX's cache does not."""
    config = example_gen_pb2.CustomConfig()
    config.custom_config.Pack(StringValue(value=cache_key))
    return config


@tfx.dsl.components.component
def _read_contract(
    examples: tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.Examples],
    file: tfx.dsl.components.Parameter[str],
    schema: tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.Schema],
) -> None:
    """The contract as ingestion wrote it, not one inferred; read anew with every new examples."""
    fileio.makedirs(schema.uri)  # which only TFX's own runner has done
    fileio.copy(file, f"{schema.uri}/{SCHEMA_NAME}")


class _RefusingExecutor(example_validator_executor.Executor):
    """TFX's own merely notes anomalies; this one also compares the splits' labels, and fails."""

    def Do(
        self,
        input_dict: dict[str, list[tfx.dsl.Artifact]],
        output_dict: dict[str, list[tfx.dsl.Artifact]],
        exec_properties: dict[str, Any],
    ) -> ExecutorOutput:
        # Importable only once TFX has been imported.
        import tensorflow_data_validation as tfdv

        output = super().Do(input_dict, output_dict, exec_properties)
        (schema_artifact,), (statistics,) = input_dict["schema"], input_dict["statistics"]
        schema = SchemaReader().read(f"{schema_artifact.uri}/{SCHEMA_NAME}")
        train, held_out = (load_statistics(statistics, split).proto() for split in _SPLITS)
        anomalies = {
            "train": tfdv.validate_statistics(train, schema, serving_statistics=held_out),
            "eval": tfdv.validate_statistics(held_out, schema),
        }
        accepted = {column.name for column in schema.feature if ACCEPTED in column.annotation.tag}
        found = [
            f"{split}: {column}: {' '.join(anomaly.description.split())}"
            for split, of_split in anomalies.items()
            for column, anomaly in sorted(
                (anomaly.path.step[0], anomaly) for anomaly in of_split.anomaly_info.values()
            )
            if column not in accepted
        ]
        if found:
            raise InputError(f"dataset has anomalies: {'; '.join(found)}")
        return output


class _ExampleValidator(tfx.components.ExampleValidator):
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(_RefusingExecutor)


class ArrowParquetExecutor(BaseExampleGenExecutor):
    """Parquet to ``tf.Example`` by record batches, in TFX's own C++ encoder."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        """TFX's hook: the transform from a split's files to serialised examples."""
        return _parquet_to_examples


@beam.ptransform_fn
def _parquet_to_examples(
    pipeline: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str
) -> beam.PCollection:
    pattern = str(Path(exec_properties["input_base"]) / split_pattern)
    return (
        pipeline
        | "ReadParquet" >> beam.io.ReadFromParquetBatched(pattern)
        | "EncodeExamples" >> beam.FlatMap(_encode)
    )


def _encode(table: pa.Table) -> list[bytes]:
    encoder = RecordBatchToExamplesEncoder()
    return [
        example for batch in table.to_batches() for example in encoder.encode(list_columns(batch))
    ]
