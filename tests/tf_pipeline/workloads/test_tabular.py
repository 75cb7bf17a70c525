from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy.special import erf

from pipelines.config import parse_config
from pipelines.ingest import Dataset, ingest
from pipelines.ingest.cache import mapped_columns
from pipelines.workload_config import WorkloadConfig
from pipelines.workloads.base import TARGET, Batch
from pipelines.workloads.tabular import Tabular
from tf_pipeline.model import build_model, weights_of
from tf_pipeline.transform import fit_transform, load_transform
from tf_pipeline.workloads.tabular import preprocess

Array = np.ndarray
Features = dict[str, Array]

ROWS = 1_200
OWN = {"categorical": ["day", "zone", "city", "user-id"], "embedding_width": 4, "bottom": [6]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Numbers, some missing and some constant; texts known, hashed and missing; big and negative
    whole numbers."""
    draw = np.random.default_rng(0)
    here = draw.random((3, ROWS)) > 0.1
    columns = {
        "price": draw.normal(40, 12, ROWS),
        "visits": np.where(here[0], draw.integers(0, 90, ROWS).astype(str), ""),
        "since": draw.integers(1_400_000_000, 1_400_001_000, ROWS),
        "same": np.full(ROWS, 0.1),
        "day": draw.integers(1, 8, ROWS),
        "zone": np.where(here[1], draw.integers(-50_000, 50_000, ROWS).astype(str), ""),
        "city": np.where(here[2], draw.choice(["Basel", "Chur", "Genf"], ROWS), ""),
        "user-id": [f"user {number}" for number in range(ROWS)],
        "clicked": draw.integers(0, 2, ROWS),
    }
    folder = tmp_path_factory.mktemp("visits")
    pd.DataFrame(columns).to_csv(folder / "visits.csv", index=False)
    data = {"source": "csv", "path": str(folder / "visits.csv"), "label": "clicked"}
    return ingest(parse_config({"name": "visits", "output": str(folder), "data": data}, ""))[0]


@pytest.fixture(scope="module")
def workload(dataset: Dataset) -> Tabular:
    return build(dataset)


@pytest.fixture(scope="module")
def prepared(workload: Tabular, dataset: Dataset) -> Batch:
    columns = mapped_columns(dataset, "train")
    return workload.prepare(columns, dataset.manifest.statistics["train"])


def build(dataset: Dataset, **own: Any) -> Tabular:
    config = WorkloadConfig.model_validate({"name": "tabular", "tabular": {**OWN, **own}})
    return Tabular.build(config, dataset.manifest)


def numpy_logits(workload: Tabular, weights: Mapping[str, Array], features: Features) -> Array:
    """From the description in ``pipelines.workloads.tabular``, one example after the other."""

    def dense(x: Array, name: str) -> Array:
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    def gelu(x: Array) -> Array:
        return x * (1 + erf(x / np.sqrt(2))) / 2

    logits = []
    for place, x in enumerate(features["numbers"].astype(np.float64)):
        for layer in workload.bottom_layers:
            x = gelu(dense(x, layer.name))
        vectors = [x]
        for number, category in enumerate(workload.categories):
            vectors.append(weights[f"{category.layer}/embedding"][features["codes"][place, number]])
        products = [vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i)]
        x = np.concatenate([x, products])
        for layer in workload.top_layers:
            x = gelu(dense(x, layer.name))
        logits.append(dense(x, "head")[0])
    return np.array(logits)


def in_float64(workload: Tabular, seed: int) -> dict[str, Array]:
    weights = workload.initial_weights(seed)
    return {name: value.astype(np.float64) for name, value in weights.items()}


def numpy_loss(logits: Array, target: Array) -> float:
    return float(np.mean(np.logaddexp(0, logits) - target * logits))


def first(features: Features, examples: int) -> Features:
    return {name: values[:examples] for name, values in features.items()}


def logits_of(model: keras.Model, features: Features) -> Array:
    return model({name: tf.constant(values) for name, values in features.items()}).numpy()


def in_double_precision(
    workload: Tabular, seed: int, features: Features, target: Array
) -> tuple[Array, dict[str, Array]]:
    """Logits, and the gradient of the mean cross-entropy for each parameter."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        model = build_model(workload, seed)
    finally:
        keras.config.set_dtype_policy(before)
    inputs = {name: tf.constant(values) for name, values in features.items()}
    with tf.GradientTape() as tape:
        logits = model(inputs)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(target, logits.dtype), logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, [variable.value for variable in model.weights])
    # In the order of the model's weights, which is the order of their names.
    return logits.numpy(), {
        name: tf.convert_to_tensor(gradient).numpy()
        for name, gradient in zip(weights_of(model), gradients, strict=True)
    }


def matrix_flops(model: keras.Model, features: Features) -> int:
    """Of every matrix product in the traced graph."""
    inputs = {name: tf.constant(values) for name, values in features.items()}
    graph = tf.function(model).get_concrete_function(inputs).graph
    products = [each for each in graph.get_operations() if "MatMul" in each.type]
    return sum(
        2 * each.inputs[0].shape[-1] * each.outputs[0].shape.num_elements() for each in products
    )


def test_the_network_gives_one_logit_per_example(workload: Tabular, prepared: Batch) -> None:
    logits = logits_of(build_model(workload, 0), first(prepared[0], 5))

    assert (logits.shape, logits.dtype) == ((5,), np.float32)


def test_the_networks_weights_are_the_workloads(workload: Tabular) -> None:
    found, stated = weights_of(build_model(workload, 3)), workload.initial_weights(3)

    assert found.keys() == stated.keys()
    for name, value in stated.items():
        np.testing.assert_array_equal(found[name], value)


def test_logits_are_those_that_numpy_works_out(
    dataset: Dataset, workload: Tabular, prepared: Batch
) -> None:
    numbers_alone = build(dataset, categorical=[])
    codes_alone = build(dataset, numeric=[])
    for each in (workload, numbers_alone, codes_alone):
        columns = mapped_columns(dataset, "eval")
        features, _ = each.prepare(columns, dataset.manifest.statistics["train"])
        some = first(features, 20)

        logits = logits_of(build_model(each, 0), some)

        expected = numpy_logits(each, in_float64(each, 0), some)
        np.testing.assert_allclose(logits, expected, atol=1e-6)


def test_in_float64_logits_and_gradients_are_exact(workload: Tabular, prepared: Batch) -> None:
    features, target = first(prepared[0], 40), prepared[1][:40]
    weights = in_float64(workload, 1)

    logits, gradients = in_double_precision(workload, 1, features, target)

    np.testing.assert_allclose(logits, numpy_logits(workload, weights, features), rtol=1e-12)
    assert gradients.keys() == weights.keys()
    for name, gradient in gradients.items():
        # Along its own gradient, a parameter changes the loss by the gradient's square.
        step = 1e-4 / np.linalg.norm(gradient)
        loss = [
            numpy_loss(
                numpy_logits(
                    workload, {**weights, name: weights[name] + sign * gradient}, features
                ),
                target,
            )
            for sign in (-step, step)
        ]
        slope = (loss[1] - loss[0]) / (2 * step)
        assert slope == pytest.approx(np.sum(gradient**2), rel=1e-6), name


def test_only_rows_that_were_looked_up_have_a_gradient(workload: Tabular, prepared: Batch) -> None:
    features, target = first(prepared[0], 40), prepared[1][:40]

    _, gradients = in_double_precision(workload, 0, features, target)

    for place, category in enumerate(workload.categories):
        rows = np.flatnonzero(np.any(gradients[f"{category.layer}/embedding"], axis=1))
        np.testing.assert_array_equal(rows, np.unique(features["codes"][:, place]))


def test_flops_are_those_of_the_networks_matrix_products(
    workload: Tabular, prepared: Batch
) -> None:
    found = matrix_flops(build_model(workload, 0), first(prepared[0], 8))

    assert found == 8 * workload.forward_flops_per_example()


def test_the_fitted_transform_prepares_as_the_shared_reader_does(
    workload: Tabular, dataset: Dataset, tmp_path: Path
) -> None:
    fit_transform(workload, dataset, tmp_path / "output")
    transform = load_transform(tmp_path / "output" / "transform_fn")
    table = dataset.table("eval")

    def raw(name: str) -> tf.Tensor | tf.SparseTensor:
        feature = dataset.manifest.feature(name)
        values = table[name].to_pylist()
        present = [place for place, value in enumerate(values) if value is not None]
        known = tf.constant([values[place] for place in present], tf.as_dtype(feature.dtype))
        if not feature.max_missing_share:
            return known[:, None]
        return tf.SparseTensor([[place, 0] for place in present], known, [len(values), 1])

    transformed = transform({name: raw(name) for name in workload.columns})

    columns = mapped_columns(dataset, "eval")
    features, target = workload.prepare(columns, dataset.manifest.statistics["train"])
    np.testing.assert_allclose(transformed["numbers"], features["numbers"], rtol=1e-6, atol=1e-6)
    # All but the hashed texts, which TensorFlow hashes in its own way.
    hashed = [each.column for each in workload.categories].index("user-id")
    codes = transformed["codes"].numpy()
    np.testing.assert_array_equal(
        np.delete(codes, hashed, axis=1), np.delete(features["codes"], hashed, axis=1)
    )
    assert 1 <= codes[:, hashed].min() < codes[:, hashed].max() <= 1_000
    np.testing.assert_array_equal(transformed[TARGET], target)


def test_without_the_label_nothing_but_features_is_transformed(workload: Tabular) -> None:
    config = {**workload.transform_config(), "numeric": [], "indicated": []}
    raw = {
        "day": tf.constant([[3], [4]], tf.int64),
        "zone": tf.SparseTensor([[1, 0]], tf.constant([-1], tf.int64), [2, 1]),
        "city": tf.SparseTensor([[0, 0]], ["Chur"], [2, 1]),
        "user-id": tf.constant([["user 1"], ["user 2"]]),
    }

    transformed = preprocess(raw, config, {})

    assert transformed.keys() == {"numbers", "codes"}
    np.testing.assert_array_equal(transformed["numbers"], [[1], [1]])
    np.testing.assert_array_equal(transformed["codes"][:, :3], [[4, 0, 2], [5, 1000, 0]])


def test_a_target_may_be_a_share_of_another_column(workload: Tabular) -> None:
    rule = {"column": "price", "share": 0.2}
    config = {**workload.transform_config(), "categories": [], "numeric": ["price"]}
    config |= {"label": "tips", "indicated": [], "positive_over": rule}
    prices = [12.25, 12.25, 1.0]
    raw = {"price": tf.constant(prices), "tips": tf.constant([2.45, 2.46, float("nan")])}
    fitted = {"mean": tf.zeros(1, tf.float64), "deviation": tf.ones(1, tf.float64)}

    transformed = preprocess(raw, config, fitted)

    np.testing.assert_array_equal(transformed[TARGET], [0, 1, 0])
    np.testing.assert_array_equal(transformed["numbers"], [[12.25], [12.25], [1]])
