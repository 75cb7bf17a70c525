import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines.config import Config
from pipelines.data_config import DataConfig
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest, sources
from pipelines.ingest.cache import verify_once
from pipelines.ingest.manifest import MANIFEST_NAME
from pipelines.ingest.request import request_digest
from pipelines.ingest.splits import hash_ids, positions

LoadConfig = Callable[..., Config]


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, to tell that it was left alone."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(config: Config, *, force: bool = False) -> str:
    with pytest.raises(InputError) as raised:
        ingest(config, force=force)
    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert len(message.splitlines()) == 1, message
    return message


def test_digits_are_1797_examples_in_two_splits_that_do_not_overlap(digits: Dataset) -> None:
    train = digits.columns("train")["example_id"].tolist()
    held_out = digits.columns("eval")["example_id"].tolist()

    assert len(train) + len(held_out) == 1797
    assert len({*train, *held_out}) == 1797
    assert 0.77 < len(train) / 1797 < 0.83
    assert [digits.manifest.rows("train"), digits.manifest.rows("eval")] == [
        len(train),
        len(held_out),
    ]


def test_every_example_is_the_sources_image_and_label(digits: Dataset) -> None:
    source = load_digits()

    for split in ("train", "eval"):
        columns = digits.columns(split)
        rows = [int(name.removeprefix("digits-")) for name in columns["example_id"]]
        assert columns["image"].shape == (len(rows), 8, 8, 1)
        assert columns["image"].dtype == np.float32
        assert columns["label"].dtype == np.int64
        np.testing.assert_array_equal(columns["image"][..., 0], source.images[rows])
        np.testing.assert_array_equal(columns["label"], source.target[rows])


def test_the_split_is_decided_by_the_examples_id_alone(digits: Dataset) -> None:
    train, held_out = (
        positions(hash_ids(digits.table(split)["example_id"].combine_chunks()))
        for split in ("train", "eval")
    )

    assert train.max() < 0.8 <= held_out.min()
    for split in (train, held_out):
        assert split.tolist() == sorted(split)  # so the source's order decides nothing


def test_statistics_are_those_of_the_train_split(digits: Dataset) -> None:
    images = digits.columns("train")["image"].astype(np.float64)
    stated = digits.manifest.statistics["train"]["image"]

    assert list(digits.manifest.statistics["train"]) == ["image", "label"]
    assert stated.mean == pytest.approx(images.mean(), rel=1e-12)
    assert stated.std == pytest.approx(images.std(), rel=1e-12)
    assert (stated.min, stated.max) == (0, 16)


def test_shards_hold_no_more_rows_than_asked_for_and_are_stated_in_the_manifest(
    load_quickstart: LoadConfig,
) -> None:
    dataset, _ = ingest(load_quickstart("data.rows_per_shard=500"))

    for split in ("train", "eval"):
        shards = dataset.shards(split)
        rows = [shard.rows for shard in shards]
        assert len(shards) == -(-dataset.manifest.rows(split) // 500)
        assert rows[:-1] == [500] * (len(rows) - 1)
        for number, shard in enumerate(shards):
            assert shard.path == f"split={split}/part-00000-{number:03d}.parquet"
            written = (dataset.folder / shard.path).read_bytes()
            assert shard.sha256 == hashlib.sha256(written).hexdigest()


def test_the_folder_holds_the_dataset_and_nothing_besides(digits: Dataset) -> None:
    assert set(content(digits.folder)) == {
        MANIFEST_NAME,
        *digits.manifest.files,
        *(shard.path for shard in digits.manifest.shards),
    }
    assert [path.name for path in digits.folder.parent.iterdir()] == [digits.folder.name]


def test_an_ingestion_leaves_the_environment_as_it_was(
    quickstart: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers inherit it, and what a source imports may set variables of OpenMP's in it."""
    open_source = sources.open_source

    def open_and_set(config: DataConfig) -> sources.Source:
        os.environ["KMP_INIT_AT_FORK"] = "FALSE"  # as scikit-learn does, once in a process
        os.environ["LANG"] = "other"
        return open_source(config)

    monkeypatch.setattr(sources, "open_source", open_and_set)
    monkeypatch.setenv("LANG", "C.UTF-8")
    monkeypatch.delenv("KMP_INIT_AT_FORK", raising=False)
    before = dict(os.environ)

    ingest(quickstart)

    assert dict(os.environ) == before


def test_two_writes_in_two_folders_give_the_same_dataset(
    load_quickstart: LoadConfig, tmp_path: Path
) -> None:
    one, _ = ingest(load_quickstart())
    two, _ = ingest(load_quickstart(f"data.output={tmp_path / 'elsewhere'}"))
    again, reused = ingest(load_quickstart(), force=True)

    assert not reused
    assert one.manifest.fingerprint == two.manifest.fingerprint == again.manifest.fingerprint
    assert content(one.folder) == content(two.folder)


def test_the_size_of_shards_changes_neither_splits_nor_order(load_quickstart: LoadConfig) -> None:
    few, _ = ingest(load_quickstart())
    before = few.columns("train")["example_id"].tolist()
    many, _ = ingest(load_quickstart("data.rows_per_shard=100"), force=True)

    assert many.columns("train")["example_id"].tolist() == before
    for split in ("train", "eval"):
        for name, stated in few.manifest.statistics[split].items():
            found = many.manifest.statistics[split][name]
            assert found.model_dump(exclude={"mean", "std"}) == stated.model_dump(
                exclude={"mean", "std"}
            )
            assert [found.mean, found.std] == pytest.approx([stated.mean, stated.std], rel=1e-12)


def test_an_unchanged_dataset_is_reused_not_written_anew(quickstart: Config) -> None:
    first, reused_first = ingest(quickstart)
    written = {path: path.stat().st_mtime_ns for path in first.folder.rglob("[!.]*")}

    second, reused_second = ingest(quickstart)

    assert (reused_first, reused_second) == (False, True)
    assert second == first
    for path, when in written.items():
        assert path.is_dir() or path.stat().st_mtime_ns == when


def test_settings_that_do_not_change_the_data_do_not_stop_its_reuse(
    load_quickstart: LoadConfig,
) -> None:
    ingest(load_quickstart())

    assert ingest(
        load_quickstart("data.reader=native", "training.seed=3", "data.runner.workers=2")
    )[1]


@pytest.mark.parametrize(
    "override", ["data.rows_per_shard=100", "data.splits={train: 0.7, eval: 0.3}"]
)
def test_a_dataset_made_with_other_settings_is_refused_until_forced(
    load_quickstart: LoadConfig, override: str
) -> None:
    dataset, _ = ingest(load_quickstart())
    before = content(dataset.folder)
    changed = load_quickstart(override)

    assert request_digest(changed.data) != request_digest(load_quickstart().data)
    assert refusal(changed) == (
        f"{dataset.folder}: holds a dataset made with other settings; "
        "name another data.output, or replace it with `tandem ingest --force`"
    )
    assert content(dataset.folder) == before
    assert ingest(changed, force=True)[0].manifest.fingerprint != dataset.manifest.fingerprint


def test_an_altered_shard_is_named_and_force_mends_it(quickstart: Config, digits: Dataset) -> None:
    shard = digits.folder / digits.manifest.shards[-1].path
    altered = bytearray(shard.read_bytes())
    altered[100] ^= 1
    shard.write_bytes(altered)

    message = refusal(quickstart)

    assert message.startswith(f"{shard}: shard was altered since it was ingested")
    assert "tandem ingest --force" in message
    with pytest.raises(InputError, match="shard was altered"):
        digits.columns("eval")
    mended, _ = ingest(quickstart, force=True)
    assert mended.manifest == digits.manifest
    verify_once(mended)


def test_a_missing_shard_is_named(quickstart: Config, digits: Dataset) -> None:
    shard = digits.folder / digits.manifest.shards[0].path
    shard.unlink()

    assert refusal(quickstart).startswith(f"{shard}: shard cannot be read (No such file")


def test_a_split_whose_shards_are_sound_can_be_read_while_another_is_not(digits: Dataset) -> None:
    (digits.folder / digits.shards("eval")[0].path).unlink()

    assert len(digits.columns("train")["label"]) == digits.manifest.rows("train")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(
    quickstart: Config, force: bool
) -> None:
    folder = quickstart.dataset_dir
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis" / "chapter.tex").write_text("years of work")

    assert refusal(quickstart, force=force) == (
        f"data.output: {folder} holds something that is not a dataset; "
        "name another folder or empty this one"
    )
    assert content(folder) == {"thesis/chapter.tex": b"years of work"}


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_place_of_the_folder_is_refused_and_left_alone(
    quickstart: Config, force: bool
) -> None:
    quickstart.dataset_dir.parent.mkdir(parents=True)
    quickstart.dataset_dir.write_text("notes")

    assert refusal(quickstart, force=force).startswith("data.output: ")
    assert quickstart.dataset_dir.read_text() == "notes"


def test_an_empty_folder_is_filled(quickstart: Config) -> None:
    quickstart.dataset_dir.mkdir(parents=True)

    assert ingest(quickstart)[0].manifest.rows("train") > 0


def test_an_unreadable_manifest_is_refused_until_forced(
    quickstart: Config, digits: Dataset
) -> None:
    (digits.folder / MANIFEST_NAME).write_text("{")

    assert refusal(quickstart).startswith(f"{digits.folder / MANIFEST_NAME}: ")
    assert ingest(quickstart, force=True)[0].manifest == digits.manifest


def test_shares_that_leave_a_split_empty_are_refused(load_quickstart: LoadConfig) -> None:
    config = load_quickstart("data.splits={train: 0.9999999, eval: 0.0000001}")

    assert refusal(config) == "data.splits: no example of digits falls in eval"
    assert not config.dataset_dir.exists()


# Ingests, and kills itself at the n-th call of the named function, before or after it has run.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from pipelines.config import load_config
from pipelines.ingest import ingest

owner, name, left = {owner}, {name!r}, {call}
original = getattr(owner, name)

def fatal(*arguments, **named):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **named)

setattr(owner, name, fatal)
ingest(load_config(Path({config!r})), force={force})
"""


@pytest.mark.parametrize(
    ("name", "call"),
    [("write_bytes", 3), ("write_bytes", 4), ("write_bytes", 6), ("rename", 1)],
    ids=["between shards", "before the note", "before the manifest", "before it is published"],
)
def test_an_ingestion_killed_half_way_leaves_nothing_readable_and_a_rerun_completes(
    quickstart: Config, tmp_path: Path, name: str, call: int
) -> None:
    program = KILLED.format(
        root=str(PROJECT_ROOT),
        owner="Path",
        name=name,
        call=call,
        config=str(quickstart.dump(tmp_path / "config.yaml")),
        force=False,
    )

    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ})

    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in quickstart.output.iterdir()] == [".data.writing"]
    with pytest.raises(InputError, match="no such dataset"):
        Dataset.open(quickstart.dataset_dir)

    dataset, reused = ingest(quickstart)
    assert not reused
    verify_once(dataset)
    shutil.rmtree(dataset.folder / ".cache")
    assert [path.name for path in quickstart.output.iterdir()] == ["data"]


@pytest.mark.parametrize("call", [1, 2], ids=["before the old one left", "after the old one left"])
def test_a_replacement_killed_while_publishing_never_shows_a_mixture(
    quickstart: Config, digits: Dataset, tmp_path: Path, call: int
) -> None:
    program = KILLED.format(
        root=str(PROJECT_ROOT),
        owner="Path",
        name="rename",
        call=call,
        config=str(quickstart.dump(tmp_path / "config.yaml")),
        force=True,
    )

    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ})

    assert killed.returncode == -signal.SIGKILL
    if call == 1:
        verify_once(Dataset.open(quickstart.dataset_dir))
    else:
        assert not quickstart.dataset_dir.exists()
    assert ingest(quickstart)[0].manifest == digits.manifest
