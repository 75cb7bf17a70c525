import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest import Dataset, cache, ingest
from pipelines.ingest.cache import mapped_columns, verify_once


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are read and checked from here on."""
    read, shards = Dataset.read, []
    monkeypatch.setattr(
        Dataset, "read", lambda self, shard: shards.append(shard.path) or read(self, shard)
    )
    return shards


def cached(dataset: Dataset, split: str) -> Path:
    return dataset.folder / ".cache" / dataset.manifest.fingerprint[:16] / f"split={split}"


def mapped_labels(folder: Path) -> list[int]:
    return mapped_columns(Dataset.open(folder), "train")["label"].tolist()


def test_columns_are_those_of_the_dataset_without_the_id(digits: Dataset) -> None:
    for split in ("train", "eval"):
        stored = digits.columns(split)
        found = mapped_columns(digits, split)

        assert list(found) == ["image", "label"]
        for name, values in found.items():
            assert values.dtype == stored[name].dtype
            np.testing.assert_array_equal(values, stored[name])


def test_columns_are_mapped_not_read_and_cannot_be_written_to(digits: Dataset) -> None:
    image = mapped_columns(digits, "train")["image"]

    assert isinstance(image.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 1


def test_shards_are_checked_on_first_read_and_not_again(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = count_reads(monkeypatch)
    paths = [shard.path for shard in digits.manifest.shards]

    verify_once(digits)
    assert reads == paths
    verify_once(digits)
    mapped_columns(digits, "eval")
    assert reads == [*paths, *(shard.path for shard in digits.shards("eval"))]
    mapped_columns(digits, "eval")
    assert len(reads) == len(paths) + len(digits.shards("eval"))


def test_a_shard_that_was_written_to_is_checked_again(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_once(digits)
    touched = digits.manifest.shards[0].path
    os.utime(digits.folder / touched, ns=(0, 0))
    reads = count_reads(monkeypatch)

    verify_once(digits)

    assert reads == [touched]


def test_a_shard_altered_after_it_was_checked_is_refused(digits: Dataset) -> None:
    mapped_columns(digits, "train")
    shard = digits.folder / digits.manifest.shards[0].path
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)

    with pytest.raises(InputError, match=r"part-00000-000.parquet: shard was altered"):
        mapped_columns(digits, "train")


@pytest.mark.parametrize("content", ["", "{", "[1, 2"])
def test_a_damaged_note_of_what_was_checked_only_costs_another_check(
    digits: Dataset, content: str
) -> None:
    verify_once(digits)
    (digits.folder / ".cache" / "verified.json").write_text(content)

    verify_once(digits)

    known = json.loads((digits.folder / ".cache" / "verified.json").read_text())
    assert set(known) == {shard.path for shard in digits.manifest.shards}


def test_a_dataset_written_anew_does_not_meet_the_old_ones_cache(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    before = len(mapped_columns(digits, "train")["label"])
    anew, _ = ingest(load_quickstart("data.splits={train: 0.5, eval: 0.5}"), force=True)

    assert len(mapped_columns(anew, "train")["label"]) == anew.manifest.rows("train") < before


def test_a_dataset_copied_over_another_is_not_answered_for_by_the_others_columns(
    load_quickstart: Callable[..., Config], tmp_path: Path
) -> None:
    """As ``rsync`` or ``aws s3 sync`` do, which leave what they do not know."""
    old, new = (
        ingest(
            load_quickstart(
                f"output={tmp_path / str(seed)}",
                f"data={{source: synthetic, synthetic: {{rows: 500, seed: {seed}}}}}",
            )
        )[0]
        for seed in (0, 1)
    )
    before = mapped_columns(old, "train")["label"]
    expected = before.tolist()

    shutil.copytree(new.folder, old.folder, dirs_exist_ok=True)

    copied = Dataset.open(old.folder)
    labels = mapped_columns(copied, "train")["label"].tolist()
    assert labels == new.columns("train")["label"].tolist() != expected
    assert before.tolist() == expected  # of who has mapped them, and reads on
    assert [*(old.folder / ".cache").glob("*/split=*")] == [cached(copied, "train")]


def test_a_decoding_that_was_killed_is_done_anew(digits: Dataset) -> None:
    left = cached(digits, "train").with_name(".split=train.writing")
    left.mkdir(parents=True)
    (left / "0.npy").write_text("half")

    assert len(mapped_columns(digits, "train")["label"]) == digits.manifest.rows("train")
    assert not left.exists()


def test_processes_that_come_together_agree(digits: Dataset) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        labels = list(pool.map(mapped_labels, [digits.folder] * 3))

    assert labels == [digits.columns("train")["label"].tolist()] * 3


def test_a_dataset_that_cannot_be_written_to_is_cached_elsewhere(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)  # root may write anywhere
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(elsewhere))
    shutil.rmtree(digits.folder / ".cache", ignore_errors=True)

    labels = mapped_columns(digits, "train")["label"]

    assert labels.tolist() == digits.columns("train")["label"].tolist()
    (folder,) = elsewhere.iterdir()
    assert digits.manifest.fingerprint[:16] in folder.name
    assert folder.stat().st_mode & 0o077 == 0
    assert not list((digits.folder / ".cache").iterdir())


def test_a_folder_of_another_user_is_not_trusted_with_the_cache(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.os, "access", lambda path, mode: False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    me = os.getuid()
    monkeypatch.setattr(cache.os, "getuid", lambda: me + 1)
    (tmp_path / f"tandem-{me + 1}-{digits.manifest.fingerprint[:16]}").mkdir()

    with pytest.raises(InputError, match="belongs to another user"):
        mapped_columns(digits, "train")
