import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from pipelines.ingest import Dataset
from pipelines.workloads import Vision
from tf_pipeline.export import export
from tf_pipeline.model import build_model

Apply = Callable[[Any, np.ndarray], np.ndarray]
Run = Callable[[Path, np.ndarray], np.ndarray]

ELSEWHERE = """
import sys
for package in ("pipelines", "tf_pipeline", "tensorflow_transform", "tfx"):
    sys.modules[package] = None  # any import of it now fails
import numpy as np
import tensorflow as tf
served = tf.saved_model.load("model").signatures["serving_default"]
raw = tf.constant(np.load("raw.npy"))
np.save("found.npy", served(image=raw)["probabilities"].numpy())
"""


@pytest.fixture(scope="module")
def exported(
    workload: Vision,
    dataset: Dataset,
    transformed: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The initial network of seed 3, exported."""
    output = tmp_path_factory.mktemp("exported") / "model"
    export(workload, build_model(workload, 3), transformed / "transform_fn", dataset, output)
    return output


@pytest.fixture
def raw(dataset: Dataset) -> np.ndarray:
    return dataset.columns("eval")["image"]


@pytest.fixture
def expected(
    workload: Vision,
    dataset: Dataset,
    reference_logits: Callable[[Vision, int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The reference network's probabilities on the eval split."""
    statistics = dataset.manifest.statistics["train"]
    features, _ = workload.prepare(dataset.columns("eval"), statistics)
    odds = np.exp(reference_logits(workload, 3, features["image"]))
    return odds / odds.sum(axis=1, keepdims=True)


def test_an_exported_model_takes_raw_images_and_gives_probabilities(
    exported: Path, run_exported: Run, raw: np.ndarray, expected: np.ndarray
) -> None:
    found = run_exported(exported, raw)

    assert (found.shape, found.dtype) == ((len(raw), 10), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_exported_model_computes_what_transform_and_model_compute(
    workload: Vision,
    transformed: Path,
    exported: Path,
    apply_transform: Run,
    apply_model: Apply,
    run_exported: Run,
    raw: np.ndarray,
) -> None:
    features = apply_transform(transformed / "transform_fn", raw)
    odds = np.exp(apply_model(build_model(workload, 3), features))

    found = run_exported(exported, raw)

    np.testing.assert_allclose(found, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("examples", [1, 2, 3, 100])
def test_an_exported_model_takes_batches_of_any_size(
    exported: Path, run_exported: Run, raw: np.ndarray, expected: np.ndarray, examples: int
) -> None:
    found = run_exported(exported, raw[:examples])

    np.testing.assert_allclose(found, expected[:examples], atol=1e-5)


def test_serialised_examples_get_the_same_probabilities(
    exported: Path, raw: np.ndarray, expected: np.ndarray
) -> None:
    def serialised(image: np.ndarray) -> bytes:
        pixels = tf.train.FloatList(value=image.ravel())
        features = tf.train.Features(feature={"image": tf.train.Feature(float_list=pixels)})
        return tf.train.Example(features=features).SerializeToString()

    served = tf.saved_model.load(str(exported)).signatures
    found = served["serving_examples"](tf.constant([serialised(image) for image in raw]))

    assert set(served) == {
        "serving_default",
        "serving_examples",
        "transform_examples",
        "example_losses",
    }
    np.testing.assert_allclose(found["probabilities"].numpy(), expected, atol=1e-5)


def test_an_exported_model_runs_in_a_process_without_this_project(
    exported: Path, raw: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "model").symlink_to(exported)
    np.save(tmp_path / "raw.npy", raw)

    subprocess.run([sys.executable, "-c", ELSEWHERE], cwd=tmp_path, check=True)

    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
