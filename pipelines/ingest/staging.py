"""Where a dataset is written before anyone can read it, and how it is published.

Shards, and a note per fragment that is done, gather in a hidden folder beside the final one; the
manifest comes last, then one rename. So a killed ingestion leaves nothing readable, and the next
one goes on where it was: fragments with a note, whose shards are unaltered, are not read again.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, get_args

from pipelines.errors import InputError
from pipelines.ingest.manifest import MANIFEST_NAME, Manifest, Split
from pipelines.ingest.shards import FragmentResult
from pipelines.whole_file import write_whole

__all__ = ["Staging"]

_REQUEST = "request.json"
_NOTES = "fragments"
_DUPLICATES = "duplicates"
_FAILED = "failed"
_LOCK = "lock"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Staging:
    """The hidden folder of one dataset."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is where the dataset is to appear."""
        self.folder = folder
        self.path = folder.with_name(f".{folder.name}.writing").absolute()

    @contextmanager
    def opened(self, request: Mapping[str, str], *, replace: bool) -> Iterator[bool]:
        """Hold the folder for this process, emptied of what another request left there.

        It is discarded if input is refused or the disk is full; else what is there, is left.
        Yields whether to write: not where there is a dataset, unless that is to be replaced. Only
        who holds the folder can tell: until then another may publish one.

        Raises:
            InputError: if the final folder holds something else, another process is writing, or
                the disk is full.
        """
        self._refuse_foreign_folder()
        with _full_disk_refused(self.folder):
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / _LOCK).open("w") as lock:
                self._hold(lock)
                try:
                    if not replace and (self.folder / MANIFEST_NAME).exists():
                        self._discard()
                        yield False
                        return
                    self._prepare(request, resume=not replace)
                    yield True
                except Exception as error:
                    if isinstance(error, InputError) or _tells_of_full_disk(error):
                        self._discard()
                    raise

    def note(self, result: FragmentResult) -> None:
        """Record that a fragment is done, or why it failed."""
        write_whole(self._note(result.number), result.model_dump_json())

    def note_failure(self) -> None:
        """Tell the other workers that the whole is going to be refused."""
        write_whole(self.path / _FAILED, b"")

    def has_failed(self) -> bool:
        """Whether a fragment has failed, or all was discarded since."""
        return (self.path / _FAILED).exists() or not (self.path / _REQUEST).exists()

    def note_duplicates(self, bucket: int, hashes: list[int]) -> None:
        """Record hashes of ids that occur more than once."""
        write_whole(self.path / _DUPLICATES / f"{bucket}.json", json.dumps(hashes))

    def result(self, number: int) -> FragmentResult | None:
        """What became of a fragment; None if it is yet to be read."""
        with suppress(FileNotFoundError):
            return FragmentResult.model_validate_json(self._note(number).read_bytes())
        return None

    def results(self) -> dict[int, FragmentResult]:
        """The fragments done or failed so far, in order."""
        return {
            int(path.stem): FragmentResult.model_validate_json(path.read_bytes())
            for path in sorted((self.path / _NOTES).glob("[0-9]*.json"))
        }

    def done(self) -> int:
        """How many fragments have a note."""
        return len(list((self.path / _NOTES).glob("[0-9]*.json")))

    def duplicates(self) -> list[int]:
        """All hashes that were noted as duplicates."""
        return [
            hashed
            for path in sorted((self.path / _DUPLICATES).glob("[0-9]*.json"))
            for hashed in json.loads(path.read_bytes())
        ]

    def publish(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Make the dataset readable under its final name, in place of what was there."""
        for name, content in files.items():
            write_whole(self.path / name, content)
        for folder in (_NOTES, _DUPLICATES):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        (self.path / _REQUEST).unlink()
        text = manifest.model_dump_json(indent=2) + "\n"
        write_whole(self.path / MANIFEST_NAME, text)
        replaced = self.folder.with_name(f".{self.folder.name}.replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(replaced)
        self.path.rename(self.folder)
        # Last: without it another process would take what is here for its own, and begin anew.
        (self.folder / _LOCK).unlink()
        shutil.rmtree(replaced, ignore_errors=True)

    def _hold(self, lock: IO[str]) -> None:
        """For this process alone, as long as ``lock`` is open.

        What the folder holds is another's until then, and not to be touched.
        """
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock.fileno()), (self.path / _LOCK).stat()):
                return
        except OSError:
            pass
        # Held, or gone with the folder, which has just been published or discarded.
        raise InputError(
            f"{self.folder}: another process is writing this dataset; wait for it, or name "
            "another data.output"
        )

    def _prepare(self, request: Mapping[str, str], *, resume: bool) -> None:
        asked = json.dumps(request, sort_keys=True).encode()
        if not (resume and self._read(_REQUEST) == asked):
            self._clear()
            write_whole(self.path / _REQUEST, asked)
        # Whatever failed last time is tried again.
        shutil.rmtree(self.path / _DUPLICATES, ignore_errors=True)
        # Made here, not by the workers: one that outlives a discarded run makes nothing anew.
        for name in (_NOTES, _DUPLICATES, *(f"split={split}" for split in get_args(Split))):
            (self.path / name).mkdir(exist_ok=True)
        (self.path / _FAILED).unlink(missing_ok=True)
        for number, result in self.results().items():
            if result.error is not None or not self._is_whole(result):
                self._note(number).unlink()

    def _discard(self) -> None:
        # Under another name first: a worker that is still writing finds its folder gone.
        discarded = self.path.with_suffix(".discarded")
        shutil.rmtree(discarded, ignore_errors=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path.rename(discarded))

    def _clear(self) -> None:
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def _note(self, number: int) -> Path:
        return self.path / _NOTES / f"{number:06d}.json"

    def _read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self.path / name).read_bytes()
        return None

    def _is_whole(self, result: FragmentResult) -> bool:
        with suppress(FileNotFoundError):
            return all(
                hashlib.sha256((self.path / shard.path).read_bytes()).hexdigest() == shard.sha256
                for shard in result.shards
            )
        return False

    def _refuse_foreign_folder(self) -> None:
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"data.output: {folder} is a file; name a folder")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).exists():
            raise InputError(
                f"data.output: {folder} holds something that is not a dataset; "
                "name another folder or empty this one"
            )


@contextmanager
def _full_disk_refused(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or not _tells_of_full_disk(error):
            raise
        raise InputError(
            f"data.output: {folder}: no space left on its disk; free some, or name another folder"
        ) from None


def _tells_of_full_disk(error: Exception) -> bool:
    """Runners wrap what a worker raised, each in its own way; the message survives."""
    return any(os.strerror(code) in str(error) for code in _NO_SPACE)
