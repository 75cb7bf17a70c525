"""Every source that a config may name, from its files to arrays and back, by the same rules."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.config import Config, parse_config
from pipelines.data_config import SourceName
from pipelines.errors import InputError
from pipelines.ingest import ingest
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.sources.tf_example import parse_example
from pipelines.ingest.validate import find_anomalies

Asked = dict[str, object]
ROWS = 60


def csv(folder: Path) -> Asked:
    lines = [f"{n / 2},{('a', 'b')[n % 2]},{n % 3}" for n in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["x,kind,y", *lines]))
    return {"path": str(folder / "*.csv"), "label": "y"}


def parquet(folder: Path) -> Asked:
    pq.write_table(
        pa.table({"x": np.arange(ROWS) / 2, "y": np.arange(ROWS) % 3}), folder / "rows.parquet"
    )
    return {"path": str(folder), "label": "y"}


def tfrecord(folder: Path) -> Asked:
    def masked(data: bytes) -> bytes:
        checksum = google_crc32c.value(data)
        rotated = (checksum >> 15 | checksum << 17) + 0xA282EAD8
        return struct.pack("<I", rotated & 0xFFFFFFFF)

    with (folder / "rows.tfrecord").open("wb") as file:
        for n in range(ROWS):
            example = parse_example(b"", "an empty one")
            example.features.feature["x"].float_list.value.append(n / 2)
            example.features.feature["y"].int64_list.value.append(n % 3)
            data = example.SerializeToString()
            length = struct.pack("<Q", len(data))
            file.write(length + masked(length) + data + masked(data))
    return {"path": str(folder / "rows.tfrecord"), "label": "y"}


def images(folder: Path) -> Asked:
    for n in range(ROWS):
        path = folder / "pets" / ("cat", "dog")[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 7), (n, 0, 255 - n)).save(path)
    return {"path": str(folder / "pets"), "images": {"height": 4, "width": 5}}


def text(folder: Path) -> Asked:
    (folder / "plays.txt").write_text("To be, or not to be, that is the question.\n" * 200)
    return {"path": str(folder / "plays.txt"), "text": {"sequence_length": 32}}


def bpe(folder: Path) -> Asked:
    return text(folder) | {
        "text": {"tokenizer": "bpe", "vocabulary_size": 300, "sequence_length": 4}
    }


MAKERS: dict[str, Callable[[Path], Asked]] = {
    "digits": lambda folder: {},
    "synthetic vision": lambda folder: {"synthetic": {"kind": "vision", "rows": ROWS}},
    "synthetic text": lambda folder: {"synthetic": {"kind": "text", "rows": ROWS}},
    "synthetic tabular": lambda folder: {"synthetic": {"kind": "tabular", "rows": ROWS}},
    "csv": csv,
    "parquet": parquet,
    "tfrecord": tfrecord,
    "images": images,
    "text bytes": text,
    "text bpe": bpe,
}


def config_of(name: str, folder: Path, **more: object) -> Config:
    raw_folder = folder / "raw"
    raw_folder.mkdir(exist_ok=True)
    data = {"source": name.split()[0], **MAKERS[name](raw_folder), **more}
    raw = {"name": "every", "output": str(folder / "out"), "data": data}
    return parse_config(raw, "test")


def test_every_source_is_tried() -> None:
    assert {name.split()[0] for name in MAKERS} == set(get_args(SourceName))


@pytest.mark.parametrize("name", MAKERS)
def test_a_source_becomes_a_dataset_that_keeps_its_own_contract(name: str, tmp_path: Path) -> None:
    config = config_of(name, tmp_path)

    dataset, reused = ingest(config)
    anew, _ = ingest(config, force=True)

    manifest = dataset.manifest
    assert not reused
    assert anew.manifest == manifest
    assert ingest(config)[1]
    assert manifest.source["name"] == config.data.source
    assert manifest.anomalies == find_anomalies(dataset) == []
    for split in ("train", "eval"):
        stored, mapped = dataset.columns(split), mapped_columns(dataset, split)
        assert list(stored) == ["example_id", *mapped]
        assert {len(values) for values in stored.values()} == {manifest.rows(split)}
        for feature in manifest.features[1:]:
            assert mapped[feature.name].shape == (manifest.rows(split), *feature.shape)
    if manifest.label is not None:
        assert manifest.classes == len(manifest.statistics["train"][manifest.label].values or {})


@pytest.mark.parametrize("allowed", [0.0, 0.1])
def test_images_that_cannot_be_read_are_counted_listed_and_refused_past_a_share(
    tmp_path: Path, allowed: float
) -> None:
    sizes = {"height": 4, "width": 5, "max_unreadable_share": allowed}
    config = config_of("images", tmp_path, images=sizes)
    broken = [tmp_path / "raw" / "pets" / "cat" / f"{n}.png" for n in (0, 2, 4)]
    for path in broken:
        path.write_bytes(b"not an image")

    if allowed:
        manifest = ingest(config)[0].manifest
        assert manifest.skipped_count == 3
        assert sorted(line.partition(": ")[0] for line in manifest.skipped) == list(
            map(str, broken)
        )
        assert manifest.rows("train") + manifest.rows("eval") == ROWS - 3
        return
    with pytest.raises(InputError) as refused:
        ingest(config)
    message = str(refused.value)
    assert message.startswith(
        "data.path: 3 of 60 examples cannot be read, more than data.images.max_unreadable_share "
        "allows (0): "
    )
    assert all(f"{path}: is not an image" in message for path in broken)
    assert not config.dataset_dir.exists()


def test_a_folder_that_takes_in_the_dataset_is_no_source(tmp_path: Path) -> None:
    config = config_of("parquet", tmp_path, path=str(tmp_path))

    with pytest.raises(InputError) as caught:
        ingest(config)

    assert str(caught.value) == (
        f"data.path: {tmp_path} takes in {tmp_path}/out/data, where the dataset is written; "
        "name a glob, or another output"
    )


def test_another_pythons_help_is_another_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {"name": "help", "output": str(tmp_path), "data": {"source": "text"}}
    config = parse_config(raw, "test")
    assert not ingest(config)[1]
    assert ingest(config)[1]

    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")

    with pytest.raises(InputError, match="has changed"):
        ingest(config)
