"""Evaluation, and the bar that a model must clear to be blessed."""

from pathlib import Path
from typing import TYPE_CHECKING

import keras

from pipelines.config import Config
from pipelines.worker import Worker
from pipelines.workloads import Vision
from tf_pipeline.data import open_dataset

if TYPE_CHECKING:  # seconds to import, which a training worker need not spend
    from tensorflow_model_analysis.proto import config_pb2 as tfma

__all__ = ["build_eval_config", "evaluate"]


def evaluate(
    config: Config, workload: Vision, model: keras.Model, transformed: Path | None = None
) -> dict[str, float]:
    """``eval_loss`` and ``eval_accuracy`` of a model on the whole eval split."""
    loss = keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    for features, labels in open_dataset(config, workload, "eval", Worker(), transformed):
        logits = model(features, training=False)
        loss.update_state(labels, logits)
        accuracy.update_state(labels, logits)
    return {"eval_loss": float(loss.result()), "eval_accuracy": float(accuracy.result())}


def build_eval_config(workload: Vision) -> "tfma.EvalConfig":
    """What TFX's Evaluator computes of an exported model, and the bar it holds it to."""
    # Not from the package's top level, where these names appear only once TFX has been imported.
    from tensorflow_model_analysis.proto import config_pb2 as tfma

    least = workload.thresholds["eval_accuracy"]
    bar = tfma.MetricThreshold(
        value_threshold=tfma.GenericValueThreshold(lower_bound={"value": least})
    )
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name="serving_examples",
                label_key=workload.label,
                prediction_key="probabilities",
            )
        ],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="SparseCategoricalAccuracy", threshold=bar),
                    tfma.MetricConfig(class_name="SparseCategoricalCrossentropy"),
                    tfma.MetricConfig(class_name="ExampleCount"),
                ]
            )
        ],
        slicing_specs=[tfma.SlicingSpec()],
    )
