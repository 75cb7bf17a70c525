import json
from pathlib import Path

import pytest

from pipelines.cell import Cell
from pipelines.errors import InputError
from pipelines.run_folder import RESULT_NAME, RunFolder, first_attempt, fresh_folder

CELL = Cell("torch", "ddp", 2, "weak", 1)
HELD = RunFolder.of("abc123", CELL, "20250601T120000Z")


def test_what_a_run_writes_of_itself_is_found_again(tmp_path: Path) -> None:
    HELD.write(tmp_path)

    found = RunFolder.find(tmp_path)

    assert found == HELD
    assert found is not None
    assert (found.run_id, found.study_id, found.cell) == ("abc123", "20250601T120000Z", CELL)


def test_what_is_written_last_counts_and_nothing_else_is_left(tmp_path: Path) -> None:
    HELD.write(tmp_path)

    HELD.model_copy(update={"workers": 4}).write(tmp_path)

    found = RunFolder.find(tmp_path)
    assert found is not None
    assert found.cell == Cell("torch", "ddp", 4, "weak", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_run_that_was_killed_while_it_wrote_has_written_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    HELD.write(tmp_path)

    def be_killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", be_killed)
    with pytest.raises(KeyboardInterrupt):
        HELD.model_copy(update={"workers": 4}).write(tmp_path)

    assert RunFolder.find(tmp_path) == HELD


def test_a_folder_without_a_run_holds_none(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of mine")

    assert RunFolder.find(tmp_path) is None
    assert RunFolder.find(tmp_path / "absent") is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        HELD.model_dump_json().encode()[:-9],
        json.dumps(HELD.model_dump() | {"framework": "jax"}).encode(),
        json.dumps(HELD.model_dump() | {"colour": "red"}).encode(),
    ],
    ids=["empty", "not text", "no mapping", "cut off", "another framework", "an unknown key"],
)
def test_what_no_run_has_written_there_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)

    for read in (RunFolder.find, RunFolder.to_resume):
        with pytest.raises(InputError) as raised:
            read(tmp_path)
        assert str(raised.value).startswith(f"{tmp_path / 'run.json'}: ")
        assert len(str(raised.value).splitlines()) == 1


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "occupied").touch()

    with pytest.raises(InputError, match=r"occupied/run\.json: "):
        RunFolder.find(tmp_path / "occupied")


def test_a_run_that_has_not_ended_can_go_on(tmp_path: Path) -> None:
    HELD.write(tmp_path)

    assert RunFolder.to_resume(tmp_path) == HELD


def test_a_folder_without_a_run_to_go_on_with_is_answered_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        RunFolder.to_resume(tmp_path)

    assert str(raised.value).startswith(f"--resume {tmp_path}: no run there")
    assert "run.json" in str(raised.value)


def test_a_run_that_has_ended_well_cannot_go_on(tmp_path: Path) -> None:
    HELD.write(tmp_path)
    (tmp_path / RESULT_NAME).write_text("{}")

    with pytest.raises(InputError, match="run abc123 has ended"):
        RunFolder.to_resume(tmp_path)


def test_every_attempts_folder_leads_to_the_firsts(tmp_path: Path) -> None:
    folders = [fresh_folder(tmp_path, "torch-ddp-weak-x2-r1")[0] for _ in range(3)]

    assert len({*folders}) == 3
    assert {first_attempt(folder) for folder in folders} == {folders[0]}
