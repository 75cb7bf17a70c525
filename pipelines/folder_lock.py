"""Folders that one process at a time works in, wherever the others were started."""

import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import InputError

__all__ = ["held_alone"]

_LOCK_NAME = ".lock"
"""Stays in the folder; it is held while a process has it open, so a killed one leaves nothing."""

_SECONDS_BETWEEN_TRIES = 0.1
_HELD = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def held_alone(folder: Path, instead: str, patience_seconds: float = 0) -> Iterator[None]:
    """Make a folder, and work in it as the only process.

    ``instead`` is what a message tells another process to do but wait. A file system that has no
    locks (some clusters' have none) keeps nobody out.

    Raises:
        InputError: if another process still works there after ``patience_seconds``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience_seconds
    with (folder / _LOCK_NAME).open("a") as lock:
        while not _take(lock.fileno()):
            if time.monotonic() >= until:
                raise InputError(
                    f"{folder}: another process is working there; wait for it, or {instead}"
                )
            time.sleep(_SECONDS_BETWEEN_TRIES)
        yield


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
