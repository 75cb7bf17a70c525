"""Looking for secrets in what a study leaves behind, and in what it says on the way."""

import base64
import gzip
import io
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["command_lines", "files_under", "holding"]

_SECONDS_BETWEEN_LOOKS = 0.05


def files_under(folder: Path) -> dict[str, bytes]:
    """Every file's content, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


def holding(
    contents: Mapping[str, bytes], passwords: Iterable[str], users: Iterable[str] = ()
) -> list[str]:
    """Where a password stands: as it is, or as the header of a request of ``users`` carries it."""
    passwords = [*passwords]
    headers = (base64.b64encode(f"{user}:{each}".encode()) for user in users for each in passwords)
    forms = [*(each.encode() for each in passwords), *headers]
    return [
        where
        for where, content in contents.items()
        if any(form in plain for plain in _unpacked(content) for form in forms)
    ]


def _unpacked(content: bytes) -> Iterator[bytes]:
    """A content, and what is compressed in it: TFRecords are, and PyTorch's exported programs."""
    yield content
    if content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from _unpacked(archive.read(name))


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """The command line of every process that is seen on this machine during a block."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_SECONDS_BETWEEN_LOOKS):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes())
                except OSError:  # it has ended meanwhile
                    continue

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield seen
    finally:
        ended.set()
        watch.join()
