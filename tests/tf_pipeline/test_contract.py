"""TFX holds a dataset's examples to the contract in its manifest, as ``find_anomalies`` does."""

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tfx import v1 as tfx
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.public.tfxio import RecordBatchToExamplesEncoder

from pipelines.config import Config
from pipelines.dag import DagEnvironment
from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import MANIFEST_NAME
from pipelines.ingest.schema import Feature, Schema
from pipelines.ingest.sources import Fragment, Skip, Source
from pipelines.ingest.tf_metadata import SCHEMA_NAME, tf_metadata_schema
from pipelines.ingest.validate import find_anomalies
from pipelines.ingest.write import write_dataset
from tf_pipeline.data import list_columns
from tf_pipeline.pipeline import build_pipeline
from tf_pipeline.runners import run_local

Change = Callable[[pa.Table], pa.Table]
Statistics = Any
ROWS = 400
CITIES = ("Lima", "Oslo", "Rome", "Łódź")
EXPECTED = Schema(
    features=(
        Feature(name="image", dtype="uint8", shape=(2, 2, 1), max=250),
        Feature(name="city", dtype="string", values=CITIES, max_unknown_share=0.1),
        Feature(name="home.country", dtype="string", values=("Peru", "Italy")),
        Feature(name="height", dtype="float32", min=0.1, max=2.5),
        Feature(name="weight", dtype="float32", max_missing_share=0.32),
        Feature(name="empty", dtype="int64", max_missing_share=1),
        Feature(name="label", dtype="int64", values=(0, 1, 2)),
    ),
    max_label_drift=0.2,
)


class People(Source):
    """400 people, a quarter of whose weights and all of whose empty values are missing."""

    features = (Feature(name="example_id", dtype="string"), *EXPECTED.features)
    label = "label"
    ids_are_unique = True
    description = {"name": "made up"}

    def fragments(self) -> list[Fragment]:
        return [Fragment(0, "made up", ())]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        rows = np.arange(ROWS)
        columns = [
            pa.array([f"person-{row}" for row in rows]),
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.arange(4 * ROWS) % 251).cast(pa.uint8()), 4
            ),
            pa.array([CITIES[row % 4] for row in rows]),
            pa.array([("Peru", "Italy")[row % 2] for row in rows]),
            pa.array(0.1 + rows % 20 / 10, pa.float32()),
            pa.array([None if row % 4 == 0 else row / 10 for row in rows], pa.float32()),
            pa.nulls(ROWS, pa.int64()),
            pa.array(rows % 3),
        ]
        yield pa.table(columns, schema=self.schema)


@pytest.fixture
def people(tmp_path: Path) -> Dataset:
    schema = tmp_path / "expected.json"
    schema.write_text(EXPECTED.model_dump_json())
    write_dataset(People(), DataConfig(expected=schema), tmp_path / "people")
    return Dataset.open(tmp_path / "people")


def doctor(dataset: Dataset, change: Change, split: str = "train") -> Dataset:
    """The dataset with a split's rows changed, and a manifest that vouches for them."""
    shards = []
    for shard in dataset.manifest.shards:
        if shard.split == split:
            encoded = io.BytesIO()
            pq.write_table(change(dataset.read(shard)), encoded)
            (dataset.folder / shard.path).write_bytes(encoded.getvalue())
            digest = hashlib.sha256(encoded.getvalue()).hexdigest()
            shard = shard.model_copy(update={"sha256": digest})
        shards.append(shard)
    manifest = dataset.manifest.model_copy(update={"shards": shards, "fingerprint": "doctored"})
    (dataset.folder / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return Dataset.open(dataset.folder)


def replaced(name: str, count: int, value: Any) -> Change:
    """Put a value in the place of a column's first ones."""

    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        column = table.column(name).combine_chunks()
        first = pa.array([value] * count, column.type)
        return table.set_column(index, name, pa.concat_arrays([first, column[count:]]))

    return change


def converted(name: str, to: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        return table.set_column(index, name, pc.cast(table.column(name), to))

    return change


def read_schema(dataset: Dataset) -> Any:
    from tensorflow_metadata.proto.v0 import schema_pb2

    return text_format.Parse((dataset.folder / SCHEMA_NAME).read_text(), schema_pb2.Schema())


def statistics(dataset: Dataset, schema: Any) -> dict[str, Statistics]:
    """Split -> what StatisticsGen says of the split's examples."""
    import tensorflow_data_validation as tfdv
    from tensorflow_data_validation.statistics import stats_impl

    def of(split: Any) -> Statistics:
        (batch,) = dataset.table(split).combine_chunks().to_batches()
        examples = RecordBatchToExamplesEncoder().encode(list_columns(batch))
        decoded = ExamplesToRecordBatchDecoder().DecodeBatch(examples)
        options = tfdv.StatsOptions(schema=schema)
        return stats_impl.generate_statistics_in_memory(decoded, options)

    return {split: of(split) for split in ("train", "eval")}


def anomalous_columns(dataset: Dataset) -> list[str]:
    """The columns in which TFX finds anomalies, as ``split: column``."""
    import tensorflow_data_validation as tfdv

    schema = read_schema(dataset)
    return sorted(
        f"{split}: {anomaly.path.step[0]}"
        for split, described in statistics(dataset, schema).items()
        for anomaly in tfdv.validate_statistics(described, schema).anomaly_info.values()
    )


def test_a_sound_dataset_has_no_anomalies(people: Dataset) -> None:
    assert find_anomalies(people) == []
    assert anomalous_columns(people) == []


def test_the_digits_have_no_anomalies(dataset: Dataset) -> None:
    assert find_anomalies(dataset) == []
    assert anomalous_columns(dataset) == []


CHANGES: dict[str, tuple[str, Change]] = {
    "missing string": ("home.country", replaced("home.country", 1, None)),
    "missing label": ("label", replaced("label", 1, None)),
    "too many missing": ("weight", replaced("weight", 50, None)),
    "unknown string": ("home.country", replaced("home.country", 1, "Utopia")),
    "too many unknown strings": ("city", replaced("city", 40, "Utopia")),
    "label above its values": ("label", replaced("label", 1, 3)),
    "label below its values": ("label", replaced("label", 1, -1)),
    "number above its range": ("height", replaced("height", 1, 2.6)),
    "number below its range": ("height", replaced("height", 1, 0.09)),
    "byte above its range": ("image", replaced("image", 1, [251, 0, 0, 0])),
    "NaN": ("weight", replaced("weight", 1, float("nan"))),
    "infinity": ("weight", replaced("weight", 1, float("inf"))),
    "missing column": ("home.country", lambda table: table.drop_columns(["home.country"])),
    "missing label column": ("label", lambda table: table.drop_columns(["label"])),
    "another type": ("height", converted("height", pa.string())),
    "float label": ("label", converted("label", pa.float32())),
}


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("change", CHANGES)
def test_tfx_finds_anomalies_in_the_columns_that_find_anomalies_names(
    people: Dataset, change: str, split: str
) -> None:
    column, changed = CHANGES[change]

    doctored = doctor(people, changed, split)

    assert [line.rsplit(": ", 1)[0] for line in find_anomalies(doctored)] == [f"{split}: {column}"]
    assert anomalous_columns(doctored) == [f"{split}: {column}"]


def test_what_the_contract_allows_tfx_allows(people: Dataset) -> None:
    some_unknown = doctor(people, replaced("city", 20, "Utopia"))
    some_missing = doctor(some_unknown, replaced("weight", 8, None))

    assert find_anomalies(some_missing) == []
    assert anomalous_columns(some_missing) == []


@pytest.fixture
def hold(config: Config, tmp_path: Path) -> Callable[..., Any]:
    """Run the DAG's ExampleValidator on a dataset's statistics; returns the splits' blessings."""

    def run(dataset: Dataset) -> Any:
        environment = DagEnvironment(dataset=str(dataset.folder), artifacts="", serving="")
        (validator,) = (
            component
            for component in build_pipeline(config, environment).components
            if component.id == "ExampleValidator"
        )
        artifacts = tfx.types.standard_artifacts
        schema, described, found = (
            artifacts.Schema(),
            artifacts.ExampleStatistics(),
            artifacts.ExampleAnomalies(),
        )
        for artifact, name in ((schema, "schema"), (described, "described"), (found, "found")):
            artifact.uri = str(tmp_path / name)
        (tmp_path / "schema").mkdir(exist_ok=True)
        (tmp_path / "schema" / SCHEMA_NAME).write_bytes((dataset.folder / SCHEMA_NAME).read_bytes())
        described.split_names = '["train", "eval"]'
        for split, content in statistics(dataset, read_schema(dataset)).items():
            folder = tmp_path / "described" / f"Split-{split}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "FeatureStats.pb").write_bytes(content.SerializeToString())
        validator.executor_spec.executor_class().Do(
            {"schema": [schema], "statistics": [described]},
            {"anomalies": [found]},
            {"exclude_splits": "[]"},
        )
        return found.get_json_value_custom_property("blessed")

    return run


def test_the_validator_passes_a_sound_dataset(people: Dataset, hold: Callable[..., Any]) -> None:
    assert hold(people) == {"train": 1, "eval": 1}


def test_the_validator_fails_on_anomalies_and_names_split_column_and_value(
    people: Dataset, hold: Callable[..., Any]
) -> None:
    doctored = doctor(people, replaced("home.country", 4, "Utopia"))
    doctored = doctor(doctored, replaced("label", 1, 7), "eval")

    with pytest.raises(InputError) as raised:
        hold(doctored)

    assert str(raised.value) == (
        "dataset has anomalies: train: home.country: Examples contain values missing from the "
        "schema: Utopia (~1%).; eval: label: Unexpectedly large value: 7."
    )


def test_the_validator_fails_on_labels_that_drift_apart(
    people: Dataset, hold: Callable[..., Any]
) -> None:
    doctored = doctor(people, replaced("label", 60, 0), "eval")

    (anomaly,) = find_anomalies(doctored)
    with pytest.raises(InputError, match=r"label: The Linfty distance .* is: 0$"):
        hold(doctored)

    assert anomaly == (
        "label: '0' is 34.9% of train and 81.8% of eval, further apart than max_label_drift 0.2 "
        "allows"
    )


def test_the_validator_passes_what_warn_accepted(people: Dataset, hold: Callable[..., Any]) -> None:
    doctored = doctor(people, replaced("home.country", 4, "Utopia"))
    manifest = doctored.manifest
    text = tf_metadata_schema(
        manifest.features, "label", manifest.max_label_drift, find_anomalies(doctored)
    )
    (doctored.folder / SCHEMA_NAME).write_text(text)

    hold(doctored)

    with pytest.raises(InputError, match="dataset has anomalies: train: label: Unexpectedly"):
        hold(doctor(doctored, replaced("label", 1, 7)))


def test_a_dataset_with_anomalies_stops_the_dag_before_anything_is_made_of_it(
    load_shrunk: Callable[..., Config], dataset: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(dataset.folder, tmp_path / "data")
    doctor(Dataset.open(tmp_path / "data"), replaced("label", 2, 10), "eval")

    with pytest.raises(InputError) as raised:
        run_local(load_shrunk(f"data.output={tmp_path / 'data'}"), tmp_path / "dag")

    assert str(raised.value) == (
        "dataset has anomalies: eval: label: Unexpectedly large value: 10."
    )
    assert not (tmp_path / "dag" / "artifacts" / "Transform").exists()


def test_the_transform_waits_for_the_validator(config: Config) -> None:
    environment = DagEnvironment(dataset="data", artifacts="", serving="")
    components = {each.id: each for each in build_pipeline(config, environment).components}

    assert components["ExampleValidator"] in components["Transform"].upstream_nodes
