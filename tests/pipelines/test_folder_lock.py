import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.folder_lock import held_alone

HOLDS = """
import sys
from pathlib import Path
from pipelines.folder_lock import held_alone
with held_alone(Path(sys.argv[1]), "give up"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_works_in_is_refused_until_that_ends(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError) as raised, held_alone(folder, "give another output"):
            pass
        other.kill()
        with held_alone(folder, "give another output", patience_seconds=60):
            pass

    assert str(raised.value) == (
        f"{folder}: another process is working there; wait for it, or give another output"
    )


def test_a_folder_is_free_again_afterwards_however_the_work_ended(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), held_alone(tmp_path, "give up"):
        raise ValueError("no")
    with held_alone(tmp_path, "give up"):
        pass
    with held_alone(tmp_path, "give up"):
        pass

    assert [each.name for each in tmp_path.iterdir()] == [".lock"]


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", has_none)

    with held_alone(tmp_path, "give up"), held_alone(tmp_path, "give up"):
        pass
