"""``tabular`` in Keras and TensorFlow Transform."""

from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from keras import layers, ops

from pipelines.workloads.base import TARGET
from pipelines.workloads.tabular import LEAST_DEVIATION, Tabular
from tf_pipeline.activation import gelu

__all__ = ["build_network", "fit", "preprocess"]

Tensors = dict[str, tf.Tensor]


def build_network(workload: Tabular, recompute: bool = False) -> keras.Model:
    """The network, untrained: ``numbers`` (batch, n) and ``codes`` (batch, c) to (batch,).

    It has no blocks whose activations ``recompute`` could leave to be computed again.
    """
    inputs = {
        name: keras.Input(spec.shape, dtype=spec.dtype, name=name)
        for name, spec in workload.features.items()
    }
    x = inputs["numbers"]
    for layer in workload.bottom_layers:
        x = layers.Dense(layer.outputs, activation=gelu, name=layer.name)(x)
    if workload.categories:
        embedded = [
            layers.Embedding(category.rows, workload.size.embedding_width, name=category.layer)(
                inputs["codes"][:, place]
            )
            for place, category in enumerate(workload.categories)
        ]
        x = ops.concatenate([x, _interactions([x, *embedded], workload.pairs)], axis=1)
    for layer in workload.top_layers:
        x = layers.Dense(layer.outputs, activation=gelu, name=layer.name)(x)
    logits = layers.Dense(workload.head.outputs, name=workload.head.name)(x)
    return keras.Model(inputs, ops.squeeze(logits, axis=1))


def fit(inputs: Tensors, config: dict[str, Any]) -> Tensors:
    """Mean and standard deviation of each numeric column's present values: (columns,), float64."""
    if not config["numeric"]:
        return {}
    # Analyzers leave out what is not finite.
    values = _numbers(inputs, config)
    mean = tft.mean(values, reduce_instance_dims=False)
    deviation = tf.sqrt(tft.var(values, reduce_instance_dims=False))
    return {"mean": mean, "deviation": deviation}


def preprocess(inputs: Tensors, config: dict[str, Any], fitted: Tensors) -> Tensors:
    """``numbers``, ``codes`` and, if the label is given, ``target``.

    Texts without a vocabulary are hashed by TensorFlow's own fingerprint, since it has no XXH3:
    they share other rows than under the shared reader.
    """
    if config["numeric"]:
        features = {"numbers": _standardised(_numbers(inputs, config), config, fitted)}
    else:
        any_input = inputs[config["categories"][0]["column"]]
        features = {"numbers": tf.ones([_batch_size(any_input), 1], tf.float32)}
    if config["categories"]:
        codes = [_codes(inputs[category["column"]], category) for category in config["categories"]]
        features["codes"] = tf.stack(codes, axis=1)
    if config["label"] in inputs:
        features[TARGET] = _target(inputs, config)
    return features


def _interactions(vectors: list[keras.KerasTensor], pairs: tuple[int, ...]) -> keras.KerasTensor:
    """Dot products of pairs of vectors (batch, width): (batch, pairs)."""
    stacked = ops.stack(vectors, axis=1)
    products = ops.matmul(stacked, ops.transpose(stacked, (0, 2, 1)))
    return ops.take(ops.reshape(products, (-1, len(vectors) ** 2)), pairs, axis=1)


def _numbers(inputs: Tensors, config: dict[str, Any]) -> tf.Tensor:
    """Numeric columns side by side, missing values NaN: (batch, columns), float64."""
    return tf.stack([_dense(inputs[name]) for name in config["numeric"]], axis=1)


def _standardised(values: tf.Tensor, config: dict[str, Any], fitted: Tensors) -> tf.Tensor:
    mean, deviation = fitted["mean"], fitted["deviation"]
    varies = deviation > LEAST_DEVIATION * tf.abs(mean)
    deviation = tf.where(varies, deviation, tf.ones_like(deviation))
    missing = ~tf.math.is_finite(values)
    standardised = tf.where(missing, tf.zeros_like(values), (values - mean) / deviation)
    places = [config["numeric"].index(name) for name in config["indicated"]]
    indicators = [tf.cast(missing[:, place], tf.float32)[:, None] for place in places]
    return tf.concat([tf.cast(standardised, tf.float32), *indicators], axis=1)


def _codes(column: tf.Tensor | tf.SparseTensor, category: dict[str, Any]) -> tf.Tensor:
    """Rows of a category's embedding; 0 for missing and unknown values: (batch,), int64."""
    values = column.values if isinstance(column, tf.SparseTensor) else tf.reshape(column, [-1])
    if category["vocabulary"]:
        codes = _look_up(values, category["vocabulary"]) + 1
    elif category["is_text"]:
        codes = tf.strings.to_hash_bucket_fast(values, category["values"]) + 1
    else:
        codes = tf.cast(values, tf.int64) % category["values"] + 1
    return _spread(column, codes, 0)


def _look_up(values: tf.Tensor, vocabulary: list[str]) -> tf.Tensor:
    """Places in a vocabulary, -1 for texts that are not in it."""

    def make_table() -> tf.lookup.StaticHashTable:
        places = tf.range(len(vocabulary), dtype=tf.int64)
        texts = tf.lookup.KeyValueTensorInitializer(tf.constant(vocabulary), places)
        return tf.lookup.StaticHashTable(texts, default_value=-1)

    # In a graph, TensorFlow Transform keeps the table, or every batch would fill it anew.
    table = tft.make_and_track_object(make_table) if tf.inside_function() else make_table()
    return table.lookup(values)


def _target(inputs: Tensors, config: dict[str, Any]) -> tf.Tensor:
    label = tf.cast(_dense(inputs[config["label"]]), tf.float32)
    rule = config["positive_over"]
    if rule is None:
        return label
    over = tf.cast(_dense(inputs[rule["column"]]), tf.float32)
    return tf.cast(label > tf.constant(rule["share"], tf.float32) * over, tf.float32)


def _dense(column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """One number per example, NaN where it is missing: (batch,), float64."""
    if isinstance(column, tf.SparseTensor):
        return _spread(column, tf.cast(column.values, tf.float64), float("nan"))
    return tf.cast(tf.reshape(column, [-1]), tf.float64)


def _spread(column: tf.Tensor | tf.SparseTensor, values: tf.Tensor, missing: float) -> tf.Tensor:
    """What was made of a column's present values, and ``missing`` for the others: (batch,)."""
    if not isinstance(column, tf.SparseTensor):
        return values
    places = column.indices[:, :1]
    filler = tf.fill([_batch_size(column)], tf.cast(missing, values.dtype))
    return tf.tensor_scatter_nd_update(filler, places, values)


def _batch_size(column: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    return column.dense_shape[0] if isinstance(column, tf.SparseTensor) else tf.shape(column)[0]
