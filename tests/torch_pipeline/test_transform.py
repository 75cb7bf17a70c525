import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.workloads import Vision
from torch_pipeline.transform import fit_transform

Apply = Callable[[Path, np.ndarray], np.ndarray]


@pytest.fixture
def raw(dataset: Dataset) -> np.ndarray:
    """The eval split's images as ingested: what the transform was not fitted on."""
    return dataset.columns("eval")["image"]


@pytest.fixture
def read_examples(transformed: Path, workload: Vision) -> Callable[[str], dict[str, np.ndarray]]:
    """Every column of a split's transformed examples."""

    def read(split: str) -> dict[str, np.ndarray]:
        (file,) = (transformed / f"split={split}").iterdir()
        table = pq.read_table(file)
        return {name: np.array(table[name].to_pylist()) for name in table.column_names}

    return read


def test_the_fitted_statistics_are_the_manifests(
    dataset: Dataset, apply_transform: Apply, transformed: Path
) -> None:
    fitted = dataset.manifest.statistics["train"]["image"]
    blank_and_full = np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), 16)]).astype("float32")

    blank, full = apply_transform(transformed / "transform_fn", blank_and_full)

    np.testing.assert_allclose(16 / (full - blank), fitted.std, rtol=1e-5)
    np.testing.assert_allclose(-16 * blank / (full - blank), fitted.mean, rtol=1e-5)


def test_the_fitted_transform_standardises_raw_images(
    dataset: Dataset, apply_transform: Apply, transformed: Path, raw: np.ndarray
) -> None:
    train = dataset.columns("train")["image"].astype(np.float64)

    found = apply_transform(transformed / "transform_fn", raw)

    assert (found.shape, found.dtype) == (raw.shape, np.float32)
    np.testing.assert_allclose(found, (raw - train.mean()) / train.std(), atol=1e-5)


def test_the_transformed_train_split_has_mean_zero_and_deviation_one(
    read_examples: Callable[[str], dict[str, np.ndarray]],
) -> None:
    images = read_examples("train")["image"].astype(np.float64)

    assert images.mean() == pytest.approx(0, abs=1e-5)
    assert images.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_transformed_examples_hold_feature_and_target_alone(
    dataset: Dataset, read_examples: Callable[[str], dict[str, np.ndarray]], split: str
) -> None:
    shapes = {name: column.shape for name, column in read_examples(split).items()}

    rows = dataset.manifest.rows(split)
    assert shapes == {"image": (rows, 64), "target": (rows,)}


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_label_reaches_the_transformed_examples_the_zeros_too(
    dataset: Dataset, read_examples: Callable[[str], dict[str, np.ndarray]], split: str
) -> None:
    expected = np.bincount(dataset.columns(split)["label"], minlength=10)

    found = np.bincount(read_examples(split)["target"], minlength=10)

    assert expected[0] > 0
    assert found.tolist() == expected.tolist()


def test_the_transform_is_saved_apart_from_the_data_it_was_fitted_on(
    workload: Vision,
    dataset: Dataset,
    apply_transform: Apply,
    transformed: Path,
    raw: np.ndarray,
    tmp_path: Path,
) -> None:
    copied = (transformed / "transform_fn").rename(tmp_path / "moved")
    try:
        found = apply_transform(copied, raw[:3])
    finally:
        copied.rename(transformed / "transform_fn")

    fitted = dataset.manifest.statistics["train"]["image"]
    np.testing.assert_allclose(found, (raw[:3] - fitted.mean) / fitted.std, atol=1e-5)


def test_an_altered_shard_is_refused(workload: Vision, dataset: Dataset, tmp_path: Path) -> None:
    altered = Dataset.open(shutil.copytree(dataset.folder, tmp_path / "data"))
    shard = altered.folder / altered.shards("train")[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")

    with pytest.raises(InputError, match=re.escape(f"{shard}: shard was altered")):
        fit_transform(workload, altered, tmp_path / "output")
