from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.workloads import Vision
from torch_pipeline.evaluate import evaluate, evaluate_exported
from torch_pipeline.export import export
from torch_pipeline.model import build_model

Expected = dict[str, float]


@pytest.fixture
def expected(
    workload: Vision,
    dataset: Dataset,
    reference_logits: Callable[[Vision, int, np.ndarray], np.ndarray],
    reference_losses: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Expected:
    """What the initial network of seed 3 scores on the eval split."""
    statistics = dataset.manifest.statistics["train"]
    features, labels = workload.prepare(dataset.columns("eval"), statistics)
    logits = reference_logits(workload, 3, features["image"])
    return {
        "eval_loss": float(reference_losses(logits, labels).mean()),
        "eval_accuracy": float((logits.argmax(axis=1) == labels).mean()),
    }


def test_a_model_is_scored_on_the_whole_eval_split(
    config: Config, workload: Vision, expected: Expected
) -> None:
    found = evaluate(config, workload, build_model(workload, 3))

    assert list(found) == ["eval_loss", "eval_accuracy"]
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_score_does_not_depend_on_the_batch_size(
    load_shrunk: Callable[..., Config], workload: Vision, dataset: Dataset, expected: Expected
) -> None:
    uneven = load_shrunk("training.batch_size_per_worker=100")

    assert dataset.manifest.rows("eval") % 100
    assert evaluate(uneven, workload, build_model(workload, 3)) == pytest.approx(expected, abs=1e-5)


def test_the_frameworks_own_transformed_examples_give_the_same_score(
    config: Config, workload: Vision, transformed: Path, expected: Expected
) -> None:
    found = evaluate(config, workload, build_model(workload, 3), transformed)

    assert found == pytest.approx(expected, abs=1e-5)


def test_the_dag_judges_the_exported_model_by_the_workloads_threshold(
    workload: Vision, dataset: Dataset, transformed: Path, expected: Expected, tmp_path: Path
) -> None:
    export(workload, build_model(workload, 3), transformed / "transform_fn", dataset, tmp_path)

    found = evaluate_exported(workload, dataset, tmp_path)

    assert list(found) == ["eval_loss", "eval_accuracy"]
    assert found == pytest.approx(expected, abs=1e-5)
