import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.checkpoints import Checkpoint, Checkpoints
from pipelines.errors import InputError

IDENTITY = {"framework": "torch", "seed": "0"}
LOSSES = [2.302585092994046, 1.9, 0.1 + 0.2]
MODEL = b"the weights, some hundred bytes of them" * 5

Save = Callable[..., Checkpoint]


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=3)


@pytest.fixture
def save(store: Checkpoints) -> Save:
    def write(step: int, to: Checkpoints = store, model: bytes = MODEL) -> Checkpoint:
        to.begin(step)
        state = to.unfinished_state(step)
        (state / "shards").mkdir(parents=True)
        (state / "model.bin").write_bytes(model)
        (state / "shards" / "0.bin").write_bytes(b"\0" * step)
        return to.commit(step, 2, IDENTITY, LOSSES)

    return write


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def alter(file: Path) -> None:
    """Change a bit, so that the size stays."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def change_manifest(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | values))


def test_a_run_that_has_saved_nothing_has_no_checkpoint(store: Checkpoints) -> None:
    assert store.newest() == (None, [])


def test_what_was_saved_comes_back(store: Checkpoints, save: Save, tmp_path: Path) -> None:
    saved = save(120)

    found, damages = store.newest()

    assert damages == []
    assert found == saved
    assert found is not None
    assert found.folder == tmp_path / "checkpoints" / "step-000120"
    assert (found.step, found.workers, found.identity) == (120, 2, IDENTITY)
    assert found.losses == LOSSES
    assert store.state_of(120).is_relative_to(found.folder)
    assert (store.state_of(120) / "model.bin").read_bytes() == MODEL
    assert (store.state_of(120) / "shards" / "0.bin").read_bytes() == b"\0" * 120


def test_another_start_of_the_run_finds_it_too(save: Save, tmp_path: Path) -> None:
    saved = save(120)

    assert Checkpoints(tmp_path / "checkpoints", keep=1).newest() == (saved, [])


def test_the_newest_is_the_one_of_the_latest_step_not_of_the_last_name(
    tmp_path: Path, save: Save
) -> None:
    store = Checkpoints(tmp_path / "checkpoints", keep=5)
    for step in (7, 999_999, 1_000_000):
        save(step, store)

    found, _ = store.newest()

    assert found is not None
    assert found.step == 1_000_000


def test_a_checkpoint_is_not_there_before_it_is_complete(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    save(5)
    store.begin(10)
    state = store.unfinished_state(10)
    (state / "model.bin").write_bytes(MODEL)

    found, damages = store.newest()

    assert found is not None
    assert (found.step, damages) == (5, [])
    assert not store.state_of(10).exists()


def test_what_breaks_off_while_it_is_completed_is_not_there_either(
    store: Checkpoints, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(5)

    def be_killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", be_killed)
        with pytest.raises(KeyboardInterrupt):
            save(10)

    found, damages = store.newest()
    assert found is not None
    assert (found.step, damages) == (5, [])


def test_a_new_checkpoints_folder_is_made_once_and_asked_for_by_all(store: Checkpoints) -> None:
    asked_before = store.unfinished_state(10)

    store.begin(10)

    assert store.unfinished_state(10) == asked_before
    assert asked_before.is_dir()


def test_what_a_killed_run_has_left_unfinished_is_discarded_and_the_rest_stays(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    save(5)
    for step in (10, 15):
        store.begin(step)
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")

    store.discard_unfinished()

    assert names_in(tmp_path / "checkpoints") == ["notes.txt", "step-000005"]


def test_there_is_nothing_to_discard_where_nothing_was_saved(
    store: Checkpoints, tmp_path: Path
) -> None:
    store.discard_unfinished()
    store.discard(10)

    assert names_in(tmp_path) == []


def test_a_checkpoint_that_could_not_be_written_is_given_up_alone(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    save(5)
    store.begin(10)

    store.discard(10)

    assert names_in(tmp_path / "checkpoints") == ["step-000005"]
    assert save(10) == store.newest()[0]


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_only_the_newest_are_kept(save: Save, tmp_path: Path, keep: int) -> None:
    store = Checkpoints(tmp_path / "checkpoints", keep)
    for step in (2, 4, 6, 8, 10):
        save(step, store)

    kept = [f"step-{step:06d}" for step in (2, 4, 6, 8, 10)][-keep:]
    assert names_in(tmp_path / "checkpoints") == kept


def test_a_damaged_one_that_is_newer_does_not_count_among_the_newest_that_are_kept(
    save: Save, tmp_path: Path
) -> None:
    store = Checkpoints(tmp_path / "checkpoints", keep=2)
    save(10, store)
    alter(save(20, store).folder / "losses.npy")

    kept, newest = save(12, store), save(14, store)  # as a run does that has gone back to 10

    assert store.newest()[0] == newest
    alter(newest.folder / "losses.npy")
    assert store.newest()[0] == kept


DAMAGES = {
    "a missing file": (
        lambda folder: (folder / "state" / "model.bin").unlink(),
        "state/model.bin is missing",
    ),
    "a missing folder": (
        lambda folder: shutil.rmtree(folder / "state" / "shards"),
        "state/shards/0.bin is missing",
    ),
    "a file that was cut off": (
        lambda folder: (folder / "state" / "model.bin").write_bytes(MODEL[:100]),
        "state/model.bin has 100 of 195 bytes",
    ),
    "an altered byte": (
        lambda folder: alter(folder / "state" / "model.bin"),
        "state/model.bin was altered (its checksum differs)",
    ),
    "altered losses": (
        lambda folder: alter(folder / "losses.npy"),
        "losses.npy was altered (its checksum differs)",
    ),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "manifest.json is missing or altered",
    ),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"step": 20, "wor'),
        "manifest.json is missing or altered",
    ),
    "a manifest that is not text": (
        lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\xfd"),
        "manifest.json is missing or altered",
    ),
    "a manifest with something unknown": (
        lambda folder: change_manifest(folder, colour="red"),
        "manifest.json is missing or altered",
    ),
    "another step's manifest": (
        lambda folder: change_manifest(folder, step=10),
        "manifest.json is another checkpoint's",
    ),
    "nothing in it": (
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
        "manifest.json is missing or altered",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_named_with_its_damage_and_the_one_before_it_taken(
    store: Checkpoints, save: Save, damage: Callable[[Path], object], said: str
) -> None:
    whole, damaged = save(10), save(20)
    damage(damaged.folder)

    found, damages = store.newest()

    assert found == whole
    assert damages == [f"{damaged.folder}: {said}"]


@pytest.mark.parametrize("name", ["state/model.bin", "state/shards/0.bin", "losses.npy"])
def test_no_altered_bit_goes_unnoticed(store: Checkpoints, save: Save, name: str) -> None:
    save(10)
    file = save(20).folder / name
    content = file.read_bytes()

    for place in range(0, len(content), 13):
        altered = bytearray(content)
        altered[place] ^= 1 << (place % 8)
        file.write_bytes(altered)
        found, damages = store.newest()
        assert found is not None
        assert (found.step, len(damages)) == (10, 1), place
    file.write_bytes(content)

    assert store.newest()[1] == []


def test_every_newer_one_that_is_damaged_is_named_the_newest_first(
    store: Checkpoints, save: Save
) -> None:
    first, second, third = save(10), save(20), save(30)
    alter(second.folder / "losses.npy")
    (third.folder / "manifest.json").unlink()

    found, damages = store.newest()

    assert found == first
    assert [damage.partition(": ")[0] for damage in damages] == [
        str(third.folder),
        str(second.folder),
    ]


def test_an_older_one_that_is_damaged_is_nobodys_concern(store: Checkpoints, save: Save) -> None:
    older, newest = save(10), save(20)
    shutil.rmtree(older.folder / "state")

    assert store.newest() == (newest, [])


def test_if_none_is_whole_the_run_does_not_silently_begin_anew(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    for step in (10, 20):
        alter(save(step).folder / "state" / "model.bin")

    with pytest.raises(InputError) as raised:
        store.newest()

    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'checkpoints' / 'step-000020'}: state/model.bin was")
    assert f"delete {tmp_path / 'checkpoints'} to begin anew" in message
    assert len(message.splitlines()) == 1


def test_a_damaged_one_is_replaced_when_its_step_is_saved_again(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    save(10)
    alter(save(20).folder / "state" / "model.bin")

    again = save(20, model=b"other weights")

    assert store.newest() == (again, [])
    assert (store.state_of(20) / "model.bin").read_bytes() == b"other weights"
    assert names_in(tmp_path / "checkpoints") == ["step-000010", "step-000020"]


def test_what_else_lies_among_the_checkpoints_is_no_checkpoint(
    store: Checkpoints, save: Save, tmp_path: Path
) -> None:
    saved = save(10)
    (tmp_path / "checkpoints" / "step-of-mine").mkdir()
    (tmp_path / "checkpoints" / "best").mkdir()

    assert store.newest() == (saved, [])
