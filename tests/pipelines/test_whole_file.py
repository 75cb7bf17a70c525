import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.whole_file import write_whole


def test_text_is_utf8_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "report.md"

    for content in ("Öl, first", b"bytes", pa.py_buffer(b"buffer"), "Öl"):
        write_whole(target, content)

    assert target.read_bytes() == "Öl".encode()
    assert list(tmp_path.iterdir()) == [target]


def test_many_writers_of_one_file_leave_one_of_theirs_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    contents = [f"{number}" * 100_000 for number in range(8)]

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            list(pool.map(lambda content: write_whole(target, content), contents))
            assert target.read_text() in contents

    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_leaves_the_file_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "result.json"
    write_whole(target, "old")

    def no_room(self: Path, content: bytes) -> int:
        os.close(os.open(self, os.O_CREAT | os.O_WRONLY))
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", no_room)
    with pytest.raises(OSError, match="No space"):
        write_whole(target, "new")

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
