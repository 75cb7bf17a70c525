"""Evaluation, and the bar that a model must clear to be blessed."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from pipelines.config import Config
from pipelines.metrics import METRICS
from pipelines.worker import Worker
from pipelines.workload_config import WorkloadConfig, WorkloadName
from pipelines.workloads import TARGET, Workload, get_family, get_thresholds
from pipelines.workloads.evaluation import Evaluation
from tf_pipeline.data import open_dataset
from tf_pipeline.loss import mean_loss

if TYPE_CHECKING:  # seconds to import, which a training worker need not spend
    from tensorflow_model_analysis.proto import config_pb2 as tfma

__all__ = ["build_eval_config", "evaluate", "read_metrics"]

_TFMA_NAMES: dict[WorkloadName, dict[str, tuple[str, str]]] = {
    "vision": {
        "eval_loss": ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"),
        "eval_accuracy": ("SparseCategoricalAccuracy", "sparse_categorical_accuracy"),
    },
    "text": {"eval_loss": ("MeanPrediction", "mean_prediction")},
    "tabular": {
        "eval_loss": ("BinaryCrossentropy", "binary_crossentropy"),
        "eval_auc": ("AUC", "auc"),
    },
}
"""Workload -> metric -> TFMA's class for it, and what it calls the result."""


def evaluate(
    config: Config, workload: Workload, model: keras.Model, transformed: Path | None = None
) -> dict[str, float]:
    """The workload's metrics of a model on the whole eval split."""
    found = Evaluation(workload)
    run = tf.function(lambda features: model(features, training=False), reduce_retracing=True)
    for features, target in open_dataset(config, workload, "eval", Worker(), transformed):
        logits = run(features)
        loss = float(mean_loss(workload, logits, target))
        found.add(loss, logits.numpy(), target.numpy())
    return found.metrics()


def build_eval_config(config: WorkloadConfig) -> "tfma.EvalConfig":
    """What TFX's Evaluator computes of an exported model, and the bar it holds it to."""
    # Not from the package's top level, where these names appear only once TFX has been imported.
    from tensorflow_model_analysis.proto import config_pb2 as tfma

    thresholds = get_thresholds(config)
    if "eval_perplexity" in thresholds:
        bound = math.log(thresholds.pop("eval_perplexity"))
        thresholds["eval_loss"] = min(bound, thresholds.get("eval_loss", bound))

    def metric(name: str, tfma_name: str) -> tfma.MetricConfig:
        if name not in thresholds:
            return tfma.MetricConfig(class_name=tfma_name)
        bound = "upper_bound" if METRICS[name].better == "less" else "lower_bound"
        bar = tfma.GenericValueThreshold(**{bound: {"value": thresholds[name]}})
        threshold = tfma.MetricThreshold(value_threshold=bar)
        return tfma.MetricConfig(class_name=tfma_name, threshold=threshold)

    # TFMA knows one label per example. Of a text's many, the model works the loss out itself; it
    # stands for the label too, since TFMA leaves out examples that have none.
    if get_family(config).predicts_sequences:
        model = tfma.ModelSpec(
            signature_name="example_losses",
            preprocessing_function_names=["example_losses"],
            label_key="loss",
            prediction_key="loss",
        )
    else:
        model = tfma.ModelSpec(
            signature_name="serving_examples",
            preprocessing_function_names=["transform_examples"],
            label_key=TARGET,
            prediction_key="probabilities",
        )
    metrics = [metric(name, tfma_name) for name, (tfma_name, _) in _TFMA_NAMES[config.name].items()]
    metrics.append(tfma.MetricConfig(class_name="ExampleCount"))
    return tfma.EvalConfig(
        model_specs=[model],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
        slicing_specs=[tfma.SlicingSpec()],
    )


def read_metrics(config: WorkloadConfig, found: Mapping[str, float]) -> dict[str, float]:
    """The workload's metrics, of what TFMA found under its own names."""
    metrics = {name: found[key] for name, (_, key) in _TFMA_NAMES[config.name].items()}
    if "eval_perplexity" in get_family(config).metrics:
        metrics["eval_perplexity"] = math.exp(metrics["eval_loss"])
    return metrics
