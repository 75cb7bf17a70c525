"""Checkpoints on disk: each a folder that is there whole or not at all, with checksums.

A framework writes its state into a folder of a temporary name. Rank 0 adds ``losses.npy`` and
``manifest.json``, which names every file with its SHA-256, and renames the folder to
``step-000120``. So whatever has that name was complete; the checksums tell what happened since.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import InputError

__all__ = ["CHECKPOINTS_FOLDER", "Checkpoint", "Checkpoints", "step_of"]

CHECKPOINTS_FOLDER = "checkpoints"
"""Of a run's folder."""
_MANIFEST, _LOSSES, _STATE = "manifest.json", "losses.npy", "state"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    sha256: str


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    step: int
    workers: int
    identity: dict[str, str]
    files: dict[str, _File]


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    step: int
    """Steps done."""
    workers: int
    """Replicas that trained until then."""
    identity: dict[str, str]
    """What must be as it was for the run to go on."""

    @property
    def losses(self) -> list[float]:
        """The training loss of every step until then, over the global batch."""
        values: list[float] = np.load(self.folder / _LOSSES).tolist()
        return values


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        """``keep``: how many of the newest stay."""
        self._folder = folder
        self._keep = keep

    def discard_unfinished(self) -> None:
        """Remove what a run that was killed while saving has left; rank 0's, before others save."""
        for unfinished in self._folder.glob(".step-*.writing"):
            shutil.rmtree(unfinished)

    def begin(self, step: int) -> None:
        """Make the folder for a new checkpoint's state; rank 0's, before any worker writes."""
        self.unfinished_state(step).mkdir(parents=True, exist_ok=True)

    def unfinished_state(self, step: int) -> Path:
        """The folder for a new checkpoint's state."""
        return self._unfinished(step) / _STATE

    def state_of(self, step: int) -> Path:
        """The folder of what the framework wrote after a step."""
        return self._finished(step) / _STATE

    def discard(self, step: int) -> None:
        """Give up a checkpoint that could not be written."""
        shutil.rmtree(self._unfinished(step), ignore_errors=True)

    def commit(
        self, step: int, workers: int, identity: Mapping[str, str], losses: list[float]
    ) -> Checkpoint:
        """Complete a checkpoint whose state is written, and drop the oldest beyond ``keep``.

        What lies beyond its step was damaged, or the run would not have gone back: it goes too.
        """
        unfinished = self._unfinished(step)
        np.save(unfinished / _LOSSES, np.array(losses))
        files = {
            str(file.relative_to(unfinished)): _File(size=file.stat().st_size, sha256=_hash(file))
            for file in sorted(unfinished.rglob("*"))
            if file.is_file()
        }
        manifest = _Manifest(step=step, workers=workers, identity=dict(identity), files=files)
        (unfinished / _MANIFEST).write_text(manifest.model_dump_json(indent=2))
        for file in unfinished.rglob("*"):
            _sync(file)
        for later in self._folders():
            if step_of(later) >= step:
                shutil.rmtree(later)
        folder = self._finished(step)
        unfinished.rename(folder)
        _sync(self._folder)
        for old in self._folders()[self._keep :]:
            shutil.rmtree(old)
        return Checkpoint(folder, step, workers, dict(identity))

    def require_same_run(self, identity: Mapping[str, str]) -> None:
        """Refuse to go on with what is another run's, without looking at more than the manifest.

        Raises:
            InputError: naming what differs.
        """
        for folder in self._folders():
            try:
                found = _manifest_of(folder)
            except _DamagedError:
                continue
            differing = [
                f"{name} was {found.identity.get(name, 'not known')}, now {value}"
                for name, value in identity.items()
                if found.identity.get(name) != value
            ]
            if differing:
                raise InputError(
                    f"{folder}: cannot go on from it, since {'; '.join(differing)}; set that "
                    "back, or begin a run in another folder"
                )
            return

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest that is whole, and what is wrong with each that is newer.

        Raises:
            InputError: if there are some, but none is whole.
        """
        damages: list[str] = []
        for folder in self._folders():
            try:
                return _open(folder), damages
            except _DamagedError as damage:
                damages.append(f"{folder}: {damage}")
        if damages:
            raise InputError(
                f"{damages[0]}; no checkpoint there is whole: delete {self._folder} to begin anew"
            )
        return None, []

    def _folders(self) -> list[Path]:
        """The newest first."""
        found = [
            each
            for each in self._folder.glob("step-*")
            if each.name.removeprefix("step-").isdigit()
        ]
        return sorted(found, key=step_of, reverse=True)

    def _finished(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def _unfinished(self, step: int) -> Path:
        return self._folder / f".step-{step:06d}.writing"


class _DamagedError(Exception):
    pass


def step_of(folder: Path) -> int:
    """The step after which a checkpoint's folder was written."""
    return int(folder.name.removeprefix("step-"))


def _manifest_of(folder: Path) -> _Manifest:
    try:
        manifest = _Manifest.model_validate_json((folder / _MANIFEST).read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        raise _DamagedError(f"{_MANIFEST} is missing or altered") from None
    if manifest.step != step_of(folder):
        raise _DamagedError(f"{_MANIFEST} is another checkpoint's")
    return manifest


def _open(folder: Path) -> Checkpoint:
    manifest = _manifest_of(folder)
    for name, written in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise _DamagedError(f"{name} is missing")
        size = file.stat().st_size
        if size != written.size:
            raise _DamagedError(f"{name} has {size:,} of {written.size:,} bytes")
        if _hash(file) != written.sha256:
            raise _DamagedError(f"{name} was altered (its checksum differs)")
    return Checkpoint(folder, manifest.step, manifest.workers, manifest.identity)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold it, so that a rename that survives a power cut names whole files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
