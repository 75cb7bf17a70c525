import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import MANIFEST_NAME, Feature
from pipelines.ingest.sources import RawData
from pipelines.ingest.validate import find_anomalies
from pipelines.ingest.writer import write_dataset

ROWS, PIXELS, CLASSES = 60, 4, 3
FEATURES = [
    Feature(name="example_id", dtype="string"),
    Feature(name="image", dtype="float32", shape=(2, 2, 1)),
    Feature(name="label", dtype="int64"),
]
Change = Callable[[pa.Table], pa.Table]


def images(values: Any, pixels: int = PIXELS) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values), pixels)


def raw_data(values: np.ndarray | None = None) -> RawData:
    if values is None:
        values = np.linspace(0, 1, ROWS * PIXELS, dtype=np.float32)
    table = pa.table(
        {
            "example_id": [f"example-{number}" for number in range(ROWS)],
            "image": images(values),
            "label": pa.array(np.arange(ROWS) % CLASSES),
        }
    )
    return RawData(table, FEATURES, "label", CLASSES, {"name": "made up"})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Small, sound, and in one shard per split."""
    write_dataset(raw_data(), DataConfig(), tmp_path / "data")
    return Dataset.open(tmp_path / "data")


def doctor(dataset: Dataset, split: str, change: Change) -> Dataset:
    """The dataset with a split's rows changed, and a manifest that vouches for them."""
    shards = []
    for shard in dataset.manifest.shards:
        if shard.split == split:
            path = dataset.folder / shard.path
            encoded = io.BytesIO()
            pq.write_table(change(pq.read_table(io.BytesIO(path.read_bytes()))), encoded)
            path.write_bytes(encoded.getvalue())
            digest = hashlib.sha256(encoded.getvalue()).hexdigest()
            shard = shard.model_copy(update={"sha256": digest})
        shards.append(shard)
    manifest = dataset.manifest.model_copy(update={"shards": shards})
    (dataset.folder / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return Dataset.open(dataset.folder)


def with_column(name: str, change: Callable[[list[Any]], Any]) -> Change:
    """Replace a column by what ``change`` makes of its values."""

    def changed(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        return table.set_column(index, name, change(table.column(name).to_pylist()))

    return changed


def image_with(value: float | None, count: int) -> Change:
    """Put a value in the place of the first elements of all images."""

    def change(rows: list[list[float | None]]) -> pa.Array:
        elements = [element for row in rows for element in row]
        elements[:count] = [value] * count
        return images(pa.array(elements, pa.float32()))

    return with_column("image", change)


def test_the_digits_have_no_anomalies(digits: Dataset) -> None:
    assert find_anomalies(digits) == []


def test_a_sound_dataset_has_no_anomalies(dataset: Dataset) -> None:
    assert find_anomalies(dataset) == []
    assert find_anomalies(doctor(dataset, "train", lambda table: table)) == []


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("outside", [CLASSES, -1, 99])
def test_a_label_outside_the_classes_is_found(dataset: Dataset, split: str, outside: int) -> None:
    change = with_column("label", lambda labels: pa.array([outside, outside, *labels[2:]]))

    assert find_anomalies(doctor(dataset, split, change)) == [
        f"{split}: label: 2 values are outside the 3 classes"
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, None], ids=str)
def test_a_value_that_is_missing_or_not_finite_is_found(
    dataset: Dataset, split: str, value: float | None
) -> None:
    assert find_anomalies(doctor(dataset, split, image_with(value, count=3))) == [
        f"{split}: image: 3 values are missing or not finite"
    ]


def test_a_missing_label_is_found(dataset: Dataset) -> None:
    change = with_column("label", lambda labels: pa.array([None, *labels[1:]]))

    (anomaly,) = find_anomalies(doctor(dataset, "train", change))

    assert anomaly.startswith("train: label: 1 values are missing")


def test_a_missing_id_is_found(dataset: Dataset) -> None:
    change = with_column("example_id", lambda ids: pa.array([None, None, *ids[2:]]))

    assert find_anomalies(doctor(dataset, "train", change)) == [
        "train: example_id: 2 values are missing"
    ]


@pytest.mark.parametrize(
    ("column", "change", "found"),
    [
        ("label", lambda labels: pa.array(labels, pa.int32()), "holds int32"),
        ("label", lambda labels: pa.array(labels, pa.float32()), "holds float32"),
        ("label", lambda labels: pa.array([str(label) for label in labels]), "holds "),
        ("image", lambda rows: images(np.ravel(rows).astype(np.float64)), "holds float64"),
        ("image", lambda rows: images(np.ravel(rows).astype(np.int64)), "holds int64"),
    ],
    ids=["int32 label", "float label", "text label", "float64 image", "integer image"],
)
def test_a_wrong_type_is_found(
    dataset: Dataset, column: str, change: Callable[[list[Any]], Any], found: str
) -> None:
    dtype = dataset.manifest.feature(column).dtype

    (anomaly,) = find_anomalies(doctor(dataset, "eval", with_column(column, change)))

    assert anomaly.startswith(f"eval: {column}: {found}")
    assert anomaly.endswith(f", the manifest says {dtype}")


def test_images_of_another_size_are_found(dataset: Dataset) -> None:
    change = with_column("image", lambda rows: images(np.zeros(9 * len(rows), np.float32), 9))

    (anomaly,) = find_anomalies(doctor(dataset, "train", change))

    assert anomaly.startswith("train: image: ")


@pytest.mark.parametrize("column", ["example_id", "image", "label"])
def test_a_missing_column_is_found(dataset: Dataset, column: str) -> None:
    changed = doctor(dataset, "eval", lambda table: table.drop_columns([column]))

    (anomaly,) = find_anomalies(changed)

    assert anomaly.startswith(f"eval: {column}: ")


def test_every_anomaly_of_every_split_is_listed(dataset: Dataset) -> None:
    labels = with_column("label", lambda labels: pa.array([-1, *labels[1:]]))
    changed = doctor(dataset, "train", lambda table: labels(image_with(np.nan, 2)(table)))
    changed = doctor(changed, "eval", image_with(np.inf, 1))

    assert find_anomalies(changed) == [
        "train: image: 2 values are missing or not finite",
        "train: label: 1 values are outside the 3 classes",
        "eval: image: 1 values are missing or not finite",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_source_delivers_that_is_not_finite_is_found(tmp_path: Path, value: float) -> None:
    values = np.zeros(ROWS * PIXELS, np.float32)
    values[::PIXELS] = value  # one element of every image

    write_dataset(raw_data(values), DataConfig(), tmp_path / "data")
    dataset = Dataset.open(tmp_path / "data")

    assert find_anomalies(dataset) == [
        f"{split}: image: {dataset.manifest.rows(split)} values are missing or not finite"
        for split in ("train", "eval")
    ]


def test_an_altered_shard_is_refused_not_validated(dataset: Dataset) -> None:
    shard = dataset.folder / dataset.manifest.shards[0].path
    shard.write_bytes(shard.read_bytes() + b"x")

    with pytest.raises(InputError, match="shard was altered"):
        find_anomalies(dataset)
