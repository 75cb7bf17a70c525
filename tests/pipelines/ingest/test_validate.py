import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.config import Config
from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest
from pipelines.ingest.manifest import MANIFEST_NAME
from pipelines.ingest.schema import Feature, Schema
from pipelines.ingest.sources import Fragment, Skip, Source
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.ingest.validate import (
    check_columns,
    check_statistics,
    find_anomalies,
    infer_schema,
)
from pipelines.ingest.write import write_dataset

ROWS, PIXELS, CLASSES = 60, 4, 3
FEATURES = (
    Feature(name="example_id", dtype="string"),
    Feature(name="image", dtype="float32", shape=(2, 2, 1)),
    Feature(name="label", dtype="int64"),
)
Change = Callable[[pa.Table], pa.Table]
LoadConfig = Callable[..., Config]


class MadeUp(Source):
    """60 images of four pixels in three classes, in one fragment."""

    features = FEATURES
    label = "label"
    ids_are_unique = True

    def __init__(self, pixels: np.ndarray | None = None) -> None:
        self._pixels = (
            np.linspace(0, 1, ROWS * PIXELS, dtype=np.float32) if pixels is None else pixels
        )
        self.description = {"name": "made up"}

    def fragments(self) -> list[Fragment]:
        return [Fragment(0, "made up", ())]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        columns = [
            pa.array([f"example-{number}" for number in range(ROWS)]),
            images(self._pixels),
            pa.array(np.arange(ROWS) % CLASSES),
        ]
        yield pa.table(columns, schema=self.schema)


def images(values: Any, pixels: int = PIXELS) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values), pixels)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Small, sound, and in one shard per split."""
    write_dataset(MadeUp(), DataConfig(), tmp_path / "data")
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
        f"{split}: label: 2 of {dataset.manifest.rows(split)} values are outside the 3 known "
        "values, more than max_unknown_share 0 allows"
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

    assert find_anomalies(doctor(dataset, "train", change)) == [
        f"train: label: 1 of {dataset.manifest.rows('train')} values are missing, more than "
        "max_missing_share 0 allows"
    ]


def test_a_missing_id_is_found(dataset: Dataset) -> None:
    change = with_column("example_id", lambda ids: pa.array([None, None, *ids[2:]]))

    assert find_anomalies(doctor(dataset, "train", change)) == [
        "train: example_id: 2 values are missing"
    ]


@pytest.mark.parametrize(
    ("column", "change", "found"),
    [
        ("label", lambda labels: pa.array(labels, pa.int32()), "holds int32"),
        ("label", lambda labels: pa.array(labels, pa.float32()), "holds float"),
        ("label", lambda labels: pa.array([str(label) for label in labels]), "holds string"),
        ("image", lambda rows: images(np.ravel(rows).astype(np.float64)), "double"),
        ("image", lambda rows: images(np.ravel(rows).astype(np.int64)), "int64"),
    ],
    ids=["int32 label", "float label", "text label", "float64 image", "integer image"],
)
def test_a_wrong_type_is_found(
    dataset: Dataset, column: str, change: Callable[[list[Any]], Any], found: str
) -> None:
    kind = dataset.manifest.feature(column).kind

    (anomaly,) = find_anomalies(doctor(dataset, "eval", with_column(column, change)))

    assert anomaly.startswith(f"eval: {column}: ")
    assert anomaly.endswith(f", the manifest says {kind}")
    assert found in anomaly


def test_images_of_another_size_are_found(dataset: Dataset) -> None:
    change = with_column("image", lambda rows: images(np.zeros(9 * len(rows), np.float32), 9))

    (anomaly,) = find_anomalies(doctor(dataset, "train", change))

    assert anomaly.startswith("train: image: holds fixed_size_list<")
    assert anomaly.endswith("[9], the manifest says float32 of shape (2, 2, 1)")


@pytest.mark.parametrize("column", ["example_id", "image", "label"])
def test_a_missing_column_is_found(dataset: Dataset, column: str) -> None:
    changed = doctor(dataset, "eval", lambda table: table.drop_columns([column]))

    assert find_anomalies(changed) == [f"eval: {column}: the column is missing"]


def test_every_anomaly_of_every_split_is_listed(dataset: Dataset) -> None:
    labels = with_column("label", lambda labels: pa.array([-1, *labels[1:]]))
    changed = doctor(dataset, "train", lambda table: labels(image_with(np.nan, 2)(table)))
    changed = doctor(changed, "eval", image_with(np.inf, 1))

    assert find_anomalies(changed) == [
        "train: image: 2 values are missing or not finite",
        f"train: label: 1 of {dataset.manifest.rows('train')} values are outside the 3 known "
        "values, more than max_unknown_share 0 allows",
        "eval: image: 1 values are missing or not finite",
    ]


def not_finite(value: float) -> MadeUp:
    pixels = np.zeros(ROWS * PIXELS, np.float32)
    pixels[::PIXELS] = value  # one element of every image
    return MadeUp(pixels)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_source_delivers_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(InputError) as raised:
        write_dataset(not_finite(value), DataConfig(), tmp_path / "data")

    assert str(raised.value).startswith("data: 2 anomalies: train: image: ")
    assert list(tmp_path.iterdir()) == []


def test_what_warn_accepted_is_in_the_manifest_and_is_not_found_again(tmp_path: Path) -> None:
    write_dataset(not_finite(np.nan), DataConfig(validation="warn"), tmp_path / "data")
    accepted = Dataset.open(tmp_path / "data")

    assert accepted.manifest.anomalies == [
        f"{split}: image: {accepted.manifest.rows(split)} values are missing or not finite"
        for split in ("train", "eval")
    ]
    assert find_anomalies(accepted) == []
    assert find_anomalies(doctor(accepted, "eval", image_with(np.inf, 1))) == []
    assert find_anomalies(doctor(accepted, "eval", image_with(np.inf, 2))) == [
        f"eval: image: {accepted.manifest.rows('eval') + 1} values are missing or not finite"
    ]


def test_an_altered_shard_is_refused_not_validated(dataset: Dataset) -> None:
    shard = dataset.folder / dataset.manifest.shards[0].path
    shard.write_bytes(shard.read_bytes() + b"x")

    with pytest.raises(InputError, match="shard was altered"):
        find_anomalies(dataset)


def test_drift_is_not_asked_of_a_label_whose_column_is_gone(dataset: Dataset) -> None:
    changed = doctor(dataset, "eval", lambda table: table.drop_columns(["label"]))
    manifest = changed.manifest.model_copy(update={"max_label_drift": 0.0})

    assert find_anomalies(Dataset(changed.folder, manifest)) == [
        "eval: label: the column is missing"
    ]


def described(**columns: ColumnStatistics) -> dict[str, dict[str, ColumnStatistics]]:
    return {"train": columns, "eval": columns}


def test_an_inferred_schema_holds_each_column_to_what_was_seen() -> None:
    features = [
        Feature(name="example_id", dtype="string"),
        Feature(name="colour", dtype="string"),
        Feature(name="comment", dtype="string"),
        Feature(name="empty", dtype="string"),
        Feature(name="count", dtype="int64"),
        Feature(name="bounded", dtype="int64", min=0, max=9),
        Feature(name="label", dtype="int64"),
    ]
    statistics = described(
        colour=ColumnStatistics(examples=3, elements=3, values={"red": 2, "blue": 1}),
        comment=ColumnStatistics(examples=3, missing=1, elements=2),
        empty=ColumnStatistics(examples=3, missing=3, values={}),
        count=ColumnStatistics(examples=3, elements=3, values={"7": 3}),
        bounded=ColumnStatistics(examples=3, elements=3, values={"7": 3}),
        label=ColumnStatistics(examples=3, elements=3, values={"10": 1, "2": 2}),
    )

    inferred = infer_schema(features, "label", statistics)

    assert inferred == (
        features[0],
        Feature(name="colour", dtype="string", values=("blue", "red")),
        Feature(name="comment", dtype="string", max_missing_share=1),
        Feature(name="empty", dtype="string", max_missing_share=1),
        features[4],
        features[5],
        Feature(name="label", dtype="int64", values=(2, 10)),
    )


def test_what_the_source_says_of_a_label_is_not_replaced_by_what_was_seen() -> None:
    label = Feature(name="label", dtype="int64", values=(0, 1, 2))
    seen = described(label=ColumnStatistics(examples=2, elements=2, values={"0": 2}))

    assert infer_schema([label], "label", seen) == (label,)


def test_columns_that_are_missing_or_of_another_type_are_named() -> None:
    expected = Schema(
        features=(
            Feature(name="label", dtype="string"),
            Feature(name="image", dtype="float32", shape=(4,)),
            Feature(name="age", dtype="int64"),
        )
    )

    assert check_columns(FEATURES, expected) == [
        "label: holds int64, the schema says string",
        "image: holds float32 of shape (2, 2, 1), the schema says float32 of shape (4,)",
        "age: the column is missing; there are example_id, image, label",
    ]
    assert check_columns(FEATURES, Schema(features=FEATURES[1:])) == []


@pytest.mark.parametrize(
    ("allowed", "missing", "found"),
    [
        (0.29, 29, []),
        (
            0.29,
            30,
            ["30 of 100 values are missing, more than max_missing_share 0.29 allows"],
        ),
        (0, 1, ["1 of 100 values are missing, more than max_missing_share 0 allows"]),
        (1, 100, []),
    ],
)
def test_just_the_allowed_share_may_be_missing(
    allowed: float, missing: int, found: list[str]
) -> None:
    feature = Feature(name="age", dtype="int64", max_missing_share=allowed)
    statistics = {"train": {"age": ColumnStatistics(examples=100, missing=missing)}}

    assert check_statistics([feature], None, None, statistics) == [
        f"train: age: {line}" for line in found
    ]


@pytest.mark.parametrize(
    ("rule", "outside"),
    [
        ({"values": (1, 2)}, "the 2 known values"),
        ({"min": 0}, "the range 0 to inf"),
        ({"max": 9.5}, "the range -inf to 9.5"),
        ({"min": -1, "max": 1}, "the range -1 to 1"),
    ],
)
def test_just_the_allowed_share_may_be_unknown(rule: dict[str, Any], outside: str) -> None:
    feature = Feature(name="age", dtype="int64", max_unknown_share=0.07, **rule)

    def anomalies(unknown: int) -> list[str]:
        found = ColumnStatistics(examples=1_000, missing=900, elements=100, unknown=unknown)
        lenient = feature.model_copy(update={"max_missing_share": 0.9})
        return check_statistics([lenient], None, None, {"eval": {"age": found}})

    assert anomalies(7) == []
    assert anomalies(8) == [
        f"eval: age: 8 of 100 values are outside {outside}, more than max_unknown_share 0.07 allows"
    ]


def labels(values: dict[str, int] | None) -> dict[str, ColumnStatistics]:
    return {"label": ColumnStatistics(examples=sum((values or {}).values()), values=values)}


def test_labels_further_apart_than_allowed_are_named_with_their_shares() -> None:
    statistics = {"train": labels({"cat": 60, "dog": 40}), "eval": labels({"cat": 9, "owl": 1})}
    label = Feature(name="label", dtype="string")

    assert check_statistics([label], "label", 0.41, statistics) == []
    assert check_statistics([label], "label", None, statistics) == []
    assert check_statistics([label], "label", 0.39, statistics) == [
        "label: 'dog' is 40.0% of train and 0.0% of eval, further apart than max_label_drift "
        "0.39 allows"
    ]


def test_drift_that_cannot_be_told_is_an_anomaly_not_a_pass() -> None:
    statistics = {"train": labels(None), "eval": labels({"1": 3})}
    label = Feature(name="label", dtype="float32")

    assert check_statistics([label], "label", 0.5, statistics) == [
        "label: max_label_drift compares labels of at most 1,000 values that are whole numbers or "
        "strings"
    ]


CITIES = ["Rome", "Oslo", "Lima"]


@pytest.fixture
def load_people(load_quickstart: LoadConfig, tmp_path: Path) -> LoadConfig:
    """A config for a CSV file of 100 people, and a schema with the given columns for it."""
    lines = [
        f"{number},{'' if number % 50 == 7 else 20 + number % 40},{CITIES[number % 3]},{number % 2}"
        for number in range(100)
    ]
    people = tmp_path / "people.csv"
    people.write_text("\n".join(["example_id,age,city,smokes", *lines]) + "\n")

    def load(columns: list[dict[str, Any]], *overrides: str, drift: float | None = None) -> Config:
        schema = tmp_path / "schema.yaml"
        schema.write_text(yaml.safe_dump({"features": columns, "max_label_drift": drift}))
        return load_quickstart(
            "data.source=csv",
            f"data.path={people}",
            "data.label=smokes",
            f"data.expected={schema}",
            *overrides,
        )

    return load


AGE = {"name": "age", "dtype": "int64", "max_missing_share": 0.1, "min": 18, "max": 99}
CITY = {"name": "city", "dtype": "string", "values": CITIES}
BREACHES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "missing column": (
        [{"name": "height", "dtype": "float32"}],
        "height: the column is missing; there are example_id, age, city, smokes",
    ),
    "wrong type": (
        [{"name": "city", "dtype": "int64"}],
        "city: holds string, the schema says int64",
    ),
    "unknown values": (
        [{**CITY, "values": ["Rome", "Oslo"], "max_unknown_share": 0.2}],
        "values are outside the 2 known values, more than max_unknown_share 0.2 allows",
    ),
    "out of range": (
        [{**AGE, "min": 40}],
        "values are outside the range 40 to 99, more than max_unknown_share 0 allows",
    ),
    "missing values": (
        [{**AGE, "max_missing_share": 0.0}],
        "values are missing, more than max_missing_share 0 allows",
    ),
}


def test_data_that_meet_the_schema_are_ingested_with_it_as_their_contract(
    load_people: LoadConfig,
) -> None:
    manifest = ingest(load_people([AGE, CITY], drift=0.9))[0].manifest

    assert manifest.anomalies == []
    assert manifest.max_label_drift == 0.9
    assert manifest.feature("age") == Feature(**AGE)
    assert manifest.feature("city").values == ("Lima", "Oslo", "Rome")
    assert manifest.feature("smokes") == Feature(name="smokes", dtype="int64", values=(0, 1))
    assert sum(manifest.statistics[split]["age"].missing for split in ("train", "eval")) == 2


@pytest.mark.parametrize("breach", BREACHES)
def test_strict_refuses_data_that_break_the_schema_and_leaves_nothing(
    load_people: LoadConfig, breach: str
) -> None:
    columns, said = BREACHES[breach]
    config = load_people(columns)

    with pytest.raises(InputError) as raised:
        ingest(config)

    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert len(message.splitlines()) == 1
    assert message.startswith("data: ")
    assert said in message
    assert message.endswith(
        f"; mend the data or {config.data.expected}, or record them with data.validation=warn"
    )
    assert list(config.dataset_dir.parent.iterdir()) == []


@pytest.mark.parametrize("breach", BREACHES)
def test_warn_records_what_breaks_the_schema_and_goes_on(
    load_people: LoadConfig, breach: str
) -> None:
    columns, said = BREACHES[breach]

    dataset, _ = ingest(load_people(columns, "data.validation=warn"))

    assert dataset.manifest.anomalies
    assert all(said in anomaly for anomaly in dataset.manifest.anomalies)
    assert dataset.manifest.rows("train") + dataset.manifest.rows("eval") == 100
    assert [feature.name for feature in dataset.manifest.features] == [
        "example_id",
        "age",
        "city",
        "smokes",
    ]
    assert find_anomalies(dataset) == []


def test_a_column_of_another_type_keeps_its_own_and_what_was_seen(
    load_people: LoadConfig,
) -> None:
    column = {"name": "city", "dtype": "int64", "values": [1]}

    manifest = ingest(load_people([column], "data.validation=warn"))[0].manifest

    assert manifest.feature("city") == Feature(name="city", dtype="string", values=CITIES)
    assert manifest.statistics["train"]["city"].unknown == 0


def test_labels_that_drift_are_refused_with_the_label_named(load_people: LoadConfig) -> None:
    with pytest.raises(InputError, match="further apart than max_label_drift 0 allows"):
        ingest(load_people([AGE], drift=0.0))
