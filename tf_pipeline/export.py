"""Export: one SavedModel that takes raw features, the fitted transform inside."""

from pathlib import Path

import keras
import tensorflow as tf

from pipelines.workloads import Vision
from tf_pipeline.transform import load_transform

__all__ = ["export"]


def export(workload: Vision, model: keras.Model, transform: Path, output: Path) -> None:
    """Write the model, with the transform fitted in the folder ``transform``, to ``output``.

    ``serving_default`` takes raw images (batch, height, width, channels) and returns
    probabilities (batch, classes); ``serving_examples`` takes serialised ``tf.Example``s.
    """
    served = _Served(workload, model, transform)
    signatures = {
        "serving_default": served.predict,
        "serving_examples": served.predict_examples,
    }
    tf.saved_model.save(served, str(output), signatures=signatures)


class _Served(tf.Module):
    def __init__(self, workload: Vision, model: keras.Model, transform: Path) -> None:
        super().__init__()
        self._model = model
        self._transform = load_transform(transform)
        feature, elements = workload.feature, workload.elements_per_example

        def probabilities(raw: tf.Tensor) -> dict[str, tf.Tensor]:
            columns = self._transform({feature: tf.reshape(raw, [-1, elements])})
            return {"probabilities": tf.nn.softmax(self._model(columns[feature], training=False))}

        @tf.function(input_signature=[tf.TensorSpec((None, *workload.image_shape), name=feature)])
        def predict(raw: tf.Tensor) -> dict[str, tf.Tensor]:
            return probabilities(raw)

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="examples")])
        def predict_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            spec = {feature: tf.io.FixedLenFeature((elements,), tf.float32)}
            return probabilities(tf.io.parse_example(examples, spec)[feature])

        self.predict = predict
        self.predict_examples = predict_examples
