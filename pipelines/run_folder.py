"""What a training run's folder says of it, so that the run can go on from there."""

import re
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.cell import Cell
from pipelines.errors import InputError
from pipelines.strategies import Framework
from pipelines.whole_file import write_whole

__all__ = [
    "CONFIG_NAME",
    "DIVERGED_NAME",
    "RESULT_NAME",
    "FolderRecord",
    "RunFolder",
    "first_attempt",
    "fresh_folder",
]

CONFIG_NAME = "config.yaml"
"""The resolved configuration."""
RESULT_NAME = "result.json"
"""Of a run that has ended well: its id, its metrics, and the loss of every step."""
DIVERGED_NAME = "diverged.json"
"""Of a run whose loss is not finite: at which step, and which rows of the train split were its
examples; null where the framework's own reader shuffles them."""


class FolderRecord(BaseModel):
    """A file in a folder that says what the folder is of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file_name: ClassVar[str]
    writer: ClassVar[str]
    """Who writes it, for messages."""

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """What a folder is of, if it says so.

        Raises:
            InputError: if what is there cannot be understood.
        """
        try:
            return cls.model_validate_json((folder / cls.file_name).read_text())
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError):
            raise InputError(
                f"{folder / cls.file_name}: is not what a {cls.writer} wrote there; begin one in "
                "another folder"
            ) from None

    def write(self, folder: Path) -> None:
        """Say so in a folder, at once or not at all."""
        write_whole(folder / self.file_name, self.model_dump_json(indent=2) + "\n")


class RunFolder(FolderRecord):
    """Which run, and the cell that it is."""

    file_name = "run.json"
    writer = "run"

    run_id: str
    framework: Framework
    strategy: str
    workers: int
    """Replicas that train now; a run may have begun with others."""
    scaling: str
    repeat: int
    study_id: str
    tracking_uri: str | None = None
    """The store that has the run, unless it is the default or its address holds a password."""

    @property
    def cell(self) -> Cell:
        """The cell of the run."""
        return Cell(self.framework, self.strategy, self.workers, self.scaling, self.repeat)

    @classmethod
    def of(
        cls, run_id: str, cell: Cell, study_id: str, tracking_uri: str | None = None
    ) -> "RunFolder":
        """A cell's run."""
        return cls(run_id=run_id, study_id=study_id, tracking_uri=tracking_uri, **cell.__dict__)

    @classmethod
    def to_resume(cls, folder: Path) -> "RunFolder":
        """The run of a folder that is to go on.

        Raises:
            InputError: if there is none, or it has ended well.
        """
        found = cls.find(folder)
        if found is None:
            raise InputError(
                f"--resume {folder}: no run there; give a run's own folder, which holds "
                f"{cls.file_name}, such as out/runs/ID/CELL"
            )
        if (folder / RESULT_NAME).exists():
            raise InputError(f"--resume {folder}: run {found.run_id} has ended; nothing is left")
        return found


def fresh_folder(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder beside those of earlier attempts; which attempt this is, counted from 1."""
    folder, attempt = parent / name, 1
    while folder.exists():
        attempt += 1
        folder = parent / f"{name}-attempt{attempt}"
    folder.mkdir(parents=True)
    return folder, attempt


def first_attempt(folder: Path) -> Path:
    """What all attempts at the same have in common: of those of ``fresh_folder`` the first."""
    return folder.with_name(re.sub(r"-attempt\d+$", "", folder.name))
