import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.ingest import Dataset
from pipelines.ingest.manifest import (
    MANIFEST_NAME,
    Manifest,
    Shard,
    fingerprint,
    read_manifest,
)
from pipelines.ingest.schema import Feature, Schema
from pipelines.ingest.tf_metadata import SCHEMA_NAME, tf_metadata_schema

FEATURES = [Feature(name="example_id", dtype="string"), Feature(name="label", dtype="int64")]
SHARES = {"train": 0.8, "eval": 0.2}
FILES = {"tokenizer.json": "its digest"}


def shard(**changes: Any) -> Shard:
    fields = {
        "path": "split=train/part-0.parquet",
        "split": "train",
        "rows": 3,
        "sha256": "file",
        "content_sha256": "rows",
    }
    return Shard(**{**fields, **changes})


def refusal(folder: Path) -> str:
    """The message of the error that reading ends with: always one line that names the file."""
    with pytest.raises(InputError) as raised:
        read_manifest(folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 1, message
    assert str(folder) in message
    return message


def test_a_manifest_is_read_as_it_was_written(digits: Dataset) -> None:
    assert read_manifest(digits.folder) == digits.manifest


def test_a_manifest_describes_the_columns(digits: Dataset) -> None:
    assert [feature.name for feature in digits.manifest.features] == [
        "example_id",
        "image",
        "label",
    ]
    assert digits.manifest.feature("image") == Feature(
        name="image", dtype="float32", shape=(8, 8, 1)
    )
    assert digits.manifest.feature("label") == Feature(
        name="label", dtype="int64", values=tuple(range(10))
    )
    assert digits.manifest.label == "label"
    assert digits.manifest.classes == 10
    assert digits.manifest.max_label_drift is None
    assert digits.manifest.anomalies == []


def test_a_manifests_columns_make_a_schema_file(digits: Dataset) -> None:
    written = json.loads((digits.folder / MANIFEST_NAME).read_text())

    schema = Schema.model_validate({"features": written["features"]})

    assert list(schema.features) == digits.manifest.features


def test_a_manifest_vouches_for_the_schema_that_tfx_reads(digits: Dataset) -> None:
    content = (digits.folder / SCHEMA_NAME).read_bytes()

    assert digits.manifest.files == {SCHEMA_NAME: hashlib.sha256(content).hexdigest()}
    assert content.decode() == tf_metadata_schema(digits.manifest.features, "label")


def test_rows_are_counted_per_split(digits: Dataset) -> None:
    by_split = {
        split: sum(shard.rows for shard in digits.shards(split)) for split in ("train", "eval")
    }

    assert {split: digits.manifest.rows(split) for split in by_split} == by_split


def test_an_unknown_column_is_refused_with_those_there_are(digits: Dataset) -> None:
    with pytest.raises(InputError) as raised:
        digits.manifest.feature("colour")

    assert str(raised.value) == (
        "manifest.json: no column 'colour'; it has: example_id, image, label"
    )


def test_a_missing_manifest_is_said_to_be_no_dataset(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        f"{tmp_path / MANIFEST_NAME}: no such dataset; make it with `tandem ingest`"
    )


def test_a_file_in_place_of_the_folder_is_no_dataset(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("not a folder")

    refusal(path)


def test_a_folder_in_place_of_the_manifest_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()

    refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"not\njson"])
def test_a_manifest_that_cannot_be_parsed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)

    assert refusal(tmp_path).endswith("; write it anew with `tandem ingest --force`")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", "ten"),
        ("shards", [{"path": "x"}]),
        ("colour", "blue"),
        ("label", 3),
        ("max_label_drift", 2),
        ("features", [{"name": "label", "dtype": "int64", "values": [1.5]}]),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused_by_its_name(
    digits: Dataset, field: str, value: object
) -> None:
    path = digits.folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))

    assert refusal(digits.folder).startswith(f"{path}: {field}")


def test_a_manifest_without_a_field_is_refused_by_its_name(digits: Dataset) -> None:
    path = digits.folder / MANIFEST_NAME
    content = json.loads(path.read_text())
    del content["fingerprint"]
    path.write_text(json.dumps(content))

    assert refusal(digits.folder).startswith(f"{path}: fingerprint: ")


def test_a_manifest_of_a_later_format_is_refused(digits: Dataset) -> None:
    path = digits.folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 3}))

    assert "format_version" in refusal(digits.folder)


def test_the_fingerprint_is_that_of_the_content(digits: Dataset) -> None:
    manifest: Manifest = digits.manifest

    assert manifest.fingerprint == fingerprint(
        manifest.features, manifest.label, manifest.split_shares, manifest.files, manifest.shards
    )


@pytest.mark.parametrize(
    "changed",
    [
        fingerprint(FEATURES[:1], "label", SHARES, FILES, [shard()]),
        fingerprint(FEATURES, "example_id", SHARES, FILES, [shard()]),
        fingerprint(FEATURES, "label", {"train": 0.7, "eval": 0.3}, FILES, [shard()]),
        fingerprint(FEATURES, "label", SHARES, {"tokenizer.json": "another"}, [shard()]),
        fingerprint(FEATURES, "label", SHARES, FILES, [shard(content_sha256="other rows")]),
        fingerprint(FEATURES, "label", SHARES, FILES, [shard(), shard(path="another")]),
        fingerprint(FEATURES, "label", SHARES, FILES, [shard(rows=4)]),
    ],
    ids=["features", "label", "shares", "files", "rows' content", "one more shard", "row count"],
)
def test_the_fingerprint_changes_with_the_content(changed: str) -> None:
    assert changed != fingerprint(FEATURES, "label", SHARES, FILES, [shard()])


def test_the_fingerprint_ignores_how_the_file_was_encoded() -> None:
    assert fingerprint(
        FEATURES, "label", SHARES, FILES, [shard(sha256="other writer")]
    ) == fingerprint(FEATURES, "label", SHARES, FILES, [shard()])
