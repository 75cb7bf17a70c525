"""What is promised of any source's dataset, told on CSV files cut into small fragments."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config, load_config
from pipelines.data_config import DataConfig
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest, sources
from pipelines.ingest.sources import csv
from pipelines.ingest.sources.csv import Csv

CONFIG = "name: trips\ndata: {source: csv, path: PATH, label: tip}\n"
Trips = Callable[..., Config]


@pytest.fixture(autouse=True)
def small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv, "FRAGMENT_BYTES", 1_000)


@pytest.fixture
def trips(tmp_path: Path) -> Trips:
    """A config for a file of trips, some ten fragments of it; rows are (id, fare, payment, tip)."""

    def write(*overrides: str, rows: list[str] | None = None) -> Config:
        lines = rows or [f"t{n},{n / 4},{('cash', 'card')[n % 2]},{n % 3}" for n in range(600)]
        path = tmp_path / "trips.csv"
        text = "\n".join(["trip,fare,payment,tip", *lines]) + "\n"
        if not path.exists() or path.read_text() != text:  # written anew it would be another file
            path.write_text(text)
        (tmp_path / "trips.yaml").write_text(CONFIG.replace("PATH", str(path)))
        return load_config(tmp_path / "trips.yaml", [f"output={tmp_path / 'out'}", *overrides])

    return write


def refusal(config: Config) -> str:
    with pytest.raises(InputError) as raised:
        ingest(config)
    assert len(str(raised.value).splitlines()) == 1
    assert not config.dataset_dir.exists()
    assert not config.output.exists() or not list(config.output.iterdir())
    return str(raised.value)


def ids(dataset: Dataset) -> dict[str, set[str]]:
    return {split: set(dataset.columns(split)["example_id"]) for split in ("train", "eval")}


def test_every_row_of_every_fragment_arrives_once(trips: Trips) -> None:
    dataset, _ = ingest(trips("data.id=trip"))

    both = ids(dataset)
    assert both["train"] | both["eval"] == {f"t{n}" for n in range(600)}
    assert len(both["train"]) + len(both["eval"]) == 600
    assert len({shard.path.split("-")[1] for shard in dataset.manifest.shards}) >= 8
    columns = dataset.columns("train")
    assert all(
        (fare, tip) == (int(trip[1:]) / 4, int(trip[1:]) % 3)
        for trip, fare, tip in zip(columns["trip"], columns["fare"], columns["tip"], strict=True)
    )


@pytest.mark.parametrize("overrides", [(), ("data.id=trip",)], ids=["made-up ids", "own ids"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(
    trips: Trips, tmp_path: Path, overrides: tuple[str, ...], workers: int
) -> None:
    usual, _ = ingest(trips(*overrides))
    other, _ = ingest(
        trips(*overrides, f"data.runner.workers={workers}", f"data.output={tmp_path / 'other'}")
    )

    assert other.manifest == usual.manifest
    for shard in usual.manifest.shards:
        written = (usual.folder / shard.path).read_bytes()
        assert (other.folder / shard.path).read_bytes() == written


@pytest.mark.parametrize("overrides", [(), ("data.id=trip",)], ids=["made-up ids", "own ids"])
def test_rows_added_at_the_end_move_no_other_to_another_split(
    trips: Trips, overrides: tuple[str, ...]
) -> None:
    before, _ = ingest(trips(*overrides))
    seen = ids(before)
    more = [f"t{n},{n / 4},{('cash', 'card')[n % 2]},{n % 3}" for n in range(900)]
    after, _ = ingest(trips(*overrides, rows=more), force=True)

    grown = ids(after)
    assert seen["train"] < grown["train"]
    assert seen["eval"] < grown["eval"]


def test_an_id_in_two_fragments_is_refused_by_name(trips: Trips) -> None:
    rows = [f"t{n},1,cash,0" for n in range(600)]
    rows[599] = rows[3]

    assert refusal(trips("data.id=trip", rows=rows)) == (
        "data.id: column 'trip' holds 't3' 2 times; every example needs an id of its own"
    )


def test_an_id_twice_in_one_fragment_is_refused_and_the_first_are_named(trips: Trips) -> None:
    rows = [f"t{n // 2},1,cash,0" for n in range(600)]

    assert refusal(trips("data.id=trip", rows=rows)) == (
        "data.id: column 'trip' holds 't0' 2 times, 't1' 2 times, 't10' 2 times, and 297 more; "
        "every example needs an id of its own"
    )


def test_a_bad_row_of_a_late_fragment_refuses_the_whole(trips: Trips, tmp_path: Path) -> None:
    rows = [f"t{n},1,cash,0" for n in range(600)]
    rows[550] = "t550,1,cash"

    assert f"{tmp_path / 'trips.csv'}: line 552" in refusal(trips(rows=rows))


def test_a_changed_source_is_refused_until_forced(trips: Trips) -> None:
    dataset, _ = ingest(trips())
    changed = trips(rows=["t0,1,cash,0"] * 50)

    with pytest.raises(InputError, match=r"has changed since .* `tandem ingest --force`$"):
        ingest(changed)
    assert Dataset.open(dataset.folder) == dataset
    assert sum(ingest(changed, force=True)[0].manifest.rows(s) for s in ("train", "eval")) == 50


def test_a_dataset_outlives_its_source(trips: Trips, tmp_path: Path) -> None:
    config = trips()
    dataset, _ = ingest(config)
    (tmp_path / "trips.csv").unlink()

    assert ingest(config) == (dataset, True)


def test_progress_is_told_and_ends_before_the_dataset_appears(trips: Trips) -> None:
    config, told = trips(), []

    def on_progress(done: int, total: int) -> None:
        told.append((done, total, config.dataset_dir.exists()))

    ingest(config, on_progress=on_progress)

    assert all(done <= total and not there for done, total, there in told)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


PROGRAM = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from pipelines.config import load_config
from pipelines.ingest import ingest
from pipelines.ingest.sources import csv

csv.FRAGMENT_BYTES = 1_000
reads, read = 0, csv.Csv.read

def fatal(self, fragment, skip):
    global reads
    reads += 1
    if reads == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, fragment, skip)

csv.Csv.read = fatal
ingest(load_config(Path({config!r}), {overrides!r}))
"""


@pytest.mark.parametrize("overrides", [(), ("data.id=trip",)], ids=["made-up ids", "own ids"])
def test_a_killed_ingestion_goes_on_with_the_fragments_that_are_left(
    trips: Trips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    asked = [f"output={tmp_path / 'out'}", "data.runner.workers=1", *overrides]
    config = trips(*asked)
    program = PROGRAM.format(
        root=str(PROJECT_ROOT), config=str(tmp_path / "trips.yaml"), overrides=asked
    )
    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ})
    assert killed.returncode == -signal.SIGKILL
    assert not config.dataset_dir.exists()

    read_again = []
    read = Csv.read
    monkeypatch.setattr(
        Csv, "read", lambda self, part, skip: read_again.append(part) or read(self, part, skip)
    )
    resumed, reused = ingest(config)

    fragments = {shard.path.split("-")[1] for shard in resumed.manifest.shards}
    assert not reused
    assert len(read_again) == len(fragments) - 5
    assert ingest(config, force=True)[0].manifest == resumed.manifest


def test_duplicates_are_found_among_fragments_written_before_a_kill_too(
    trips: Trips, tmp_path: Path
) -> None:
    rows = [f"t{n},1,cash,0" for n in range(600)]
    rows[599] = rows[3]
    asked = [f"output={tmp_path / 'out'}", "data.runner.workers=1", "data.id=trip"]
    config = trips(*asked, rows=rows)
    program = PROGRAM.format(
        root=str(PROJECT_ROOT), config=str(tmp_path / "trips.yaml"), overrides=asked
    )
    killed = subprocess.run([sys.executable, "-c", program], env={**os.environ})
    assert killed.returncode == -signal.SIGKILL

    assert "holds 't3' 2 times" in refusal(config)


def test_what_was_left_by_another_request_is_not_mixed_in(trips: Trips, tmp_path: Path) -> None:
    left = tmp_path / "out" / ".data.writing" / "split=train" / "part-00000-000.parquet"
    left.parent.mkdir(parents=True)
    left.write_text("not a shard")

    dataset, _ = ingest(trips())

    assert dataset.read(dataset.manifest.shards[0]).num_rows > 0


def test_two_ingestions_into_one_folder_are_kept_apart(trips: Trips) -> None:
    config = trips()
    staging = config.dataset_dir.with_name(".data.writing")
    shard = staging / "split=train" / "part-00000-000.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_text("what the other one has written so far")
    with (staging / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing this dataset"):
            ingest(config)

        assert shard.read_text() == "what the other one has written so far"
    assert ingest(config)[1] is False


def test_what_another_process_publishes_in_between_is_left_alone(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trips()
    writing, published = (config.dataset_dir.with_name(name) for name in (".data.writing", "data"))

    def hold_too_late(*_: object) -> None:
        writing.rename(published)
        (published / "manifest.json").write_text("another's")

    monkeypatch.setattr(fcntl, "flock", hold_too_late)

    with pytest.raises(InputError, match="another process is writing this dataset"):
        ingest(config)
    assert (published / "manifest.json").read_text() == "another's"


def publish_meanwhile(monkeypatch: pytest.MonkeyPatch, first: Config) -> None:
    """Have ``first`` ingested while the next ingestion opens its source."""

    open_source = sources.open_source

    def open_slowly(config: DataConfig) -> sources.Source:
        monkeypatch.setattr(sources, "open_source", open_source)
        ingest(first)
        return open_source(config)

    monkeypatch.setattr(sources, "open_source", open_slowly)


def test_what_another_has_published_while_the_source_was_opened_is_not_replaced(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trips(), trips("data.splits={train: 0.5, eval: 0.5}")
    publish_meanwhile(monkeypatch, first)

    with pytest.raises(InputError, match="holds a dataset made with other settings"):
        ingest(second)

    assert ingest(first)[1] is True
    assert [path.name for path in first.output.iterdir()] == ["data"]


def test_what_another_has_published_with_the_same_settings_is_reused(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trips()
    publish_meanwhile(monkeypatch, config)

    dataset, reused = ingest(config)

    assert reused
    assert (dataset.folder / ".cache" / "verified.json").exists()
    assert [path.name for path in config.output.iterdir()] == ["data"]


def test_who_forces_replaces_what_another_has_published_meanwhile(
    trips: Trips, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trips(), trips("data.splits={train: 0.5, eval: 0.5}")
    publish_meanwhile(monkeypatch, first)

    dataset, reused = ingest(second, force=True)

    assert not reused
    assert dataset.manifest.split_shares == {"train": 0.5, "eval": 0.5}


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(trips: Trips, tmp_path: Path) -> None:
    config = trips()
    # A limit on the size of files fails like a full disk, and needs no disk of our own.
    done = subprocess.run(
        [
            Path(sys.executable).with_name("tandem"),
            "ingest",
            "-c",
            tmp_path / "trips.yaml",
            "--set",
            f"output={tmp_path / 'out'}",
        ],
        capture_output=True,
        text=True,
        env={**os.environ},
        cwd=PROJECT_ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, 1_500)),
    )

    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: data.output: {config.dataset_dir}: no space left on its disk; free some, or "
        "name another folder"
    )
    assert not list((tmp_path / "out").iterdir())
