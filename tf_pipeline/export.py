"""Export: one SavedModel that takes raw columns, the fitted transform inside."""

from pathlib import Path

import keras
import tensorflow as tf

from pipelines.ingest.dataset import Dataset
from pipelines.workloads import TARGET, Workload
from tf_pipeline.loss import prediction_losses
from tf_pipeline.transform import load_transform, raw_feature_spec

__all__ = ["export"]

_Tensors = dict[str, tf.Tensor]
_MISSING = {tf.string: "", tf.int64: tf.int64.min}
_TYPES = {"string": tf.string, "float32": tf.float32, "int64": tf.int64, "uint8": tf.int64}


def export(
    workload: Workload, model: keras.Model, transform: Path, dataset: Dataset, output: Path
) -> None:
    """Write the model, with the transform fitted in the folder ``transform``, to ``output``.

    ``serving_default`` takes the workload's ``served_columns`` by name, with batches first, and
    returns ``probabilities``; a value that is missing is NaN, an empty text or the least integer.
    ``serving_examples`` takes serialised ``tf.Example``s instead. For evaluation,
    ``transform_examples`` makes features and target of them, and ``example_losses`` the loss of
    each.
    """
    served = _Served(workload, model, transform, dataset)
    signatures = {
        "serving_default": served.predict,
        "serving_examples": served.predict_examples,
        "transform_examples": served.transform_examples,
        "example_losses": served.example_losses,
    }
    tf.saved_model.save(served, str(output), signatures=signatures)


class _Served(tf.Module):
    def __init__(
        self, workload: Workload, model: keras.Model, transform: Path, dataset: Dataset
    ) -> None:
        super().__init__()
        self._model = model
        self._transform = load_transform(transform)
        columns = raw_feature_spec(dataset, workload.columns)
        served = {name: columns[name] for name in workload.served_columns}
        features = [dataset.manifest.feature(name) for name in served]
        inputs = {
            each.name: tf.TensorSpec((None, *each.shape), _TYPES[each.dtype], name=each.name)
            for each in features
        }
        examples = tf.TensorSpec((None,), tf.string, name="examples")

        def logits_of(transformed: _Tensors) -> tf.Tensor:
            features = {name: transformed[name] for name in workload.features}
            return self._model(features, training=False)

        def probabilities(raw: _Tensors) -> _Tensors:
            activate = tf.sigmoid if workload.loss == "sigmoid" else tf.nn.softmax
            return {"probabilities": activate(logits_of(self._transform(raw)))}

        @tf.function(input_signature=[inputs])
        def predict(raw: _Tensors) -> _Tensors:
            return probabilities({name: _as_stored(raw[name], served[name]) for name in served})

        @tf.function(input_signature=[examples])
        def predict_examples(examples: tf.Tensor) -> _Tensors:
            return probabilities(tf.io.parse_example(examples, served))

        @tf.function(input_signature=[examples])
        def transform_examples(examples: tf.Tensor) -> _Tensors:
            transformed: _Tensors = self._transform(tf.io.parse_example(examples, columns))
            return transformed

        @tf.function(input_signature=[examples])
        def example_losses(examples: tf.Tensor) -> _Tensors:
            transformed = self._transform(tf.io.parse_example(examples, columns))
            losses = prediction_losses(workload, logits_of(transformed), transformed[TARGET])
            return {"loss": tf.reduce_mean(losses, axis=tf.range(1, tf.rank(losses)))}

        self.predict = predict
        self.predict_examples = predict_examples
        self.transform_examples = transform_examples
        self.example_losses = example_losses


def _as_stored(
    values: tf.Tensor, stored: tf.io.FixedLenFeature | tf.io.VarLenFeature
) -> tf.Tensor | tf.SparseTensor:
    """A dense column as it would be parsed: flat, and sparse if it may miss values."""
    if isinstance(stored, tf.io.FixedLenFeature):
        return tf.reshape(values, [-1, *stored.shape])
    values = tf.reshape(values, [-1, 1])
    if values.dtype == tf.float32:
        present = ~tf.math.is_nan(values)
    else:
        present = values != tf.constant(_MISSING[values.dtype], values.dtype)
    places = tf.where(present)
    return tf.SparseTensor(
        places, tf.gather_nd(values, places), tf.shape(values, out_type=tf.int64)
    )
