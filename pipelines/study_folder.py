"""What a study's folder says of it, so that the study can go on from there."""

import time
from pathlib import Path

from pipelines import tracking
from pipelines.config import Config, load_config
from pipelines.errors import InputError
from pipelines.run_folder import CONFIG_NAME, FolderRecord

__all__ = ["StudyFolder"]

_SECONDS_TO_THE_NEXT_ID = 0.2


class StudyFolder(FolderRecord):
    """Which execution of a study."""

    file_name = "study.json"
    writer = "study"

    study_id: str
    tracking_uri: str | None = None
    """The store that has its runs, unless it is the default or its address holds a password."""

    @classmethod
    def to_resume(cls, folder: Path, overrides: list[str]) -> tuple[Config, str]:
        """The configuration and the id of a folder's study, which is to go on.

        Raises:
            InputError: if there is none, or it would go on in another folder.
        """
        found = cls.find(folder)
        if found is None:
            raise InputError(
                f"--resume {folder}: no study there; give a study's own folder, which holds "
                f"{cls.file_name}, such as out/studies/ID"
            )
        where = [] if found.tracking_uri is None else [f"tracking.uri={found.tracking_uri}"]
        config = load_config(folder / CONFIG_NAME, [*where, *overrides])
        if cls.path(config, found.study_id).resolve() != folder.resolve():
            raise InputError(
                f"--resume {folder}: the study writes to {config.output}, which is not there from "
                "here; go on from where it was begun, or name its folder with --set output=FOLDER"
            )
        return config, found.study_id

    @classmethod
    def around(cls, run: Path) -> Path | None:
        """The folder of the study that a run's folder is part of, if it is."""
        parent = run.parent if run.name else run.absolute().parent
        return None if cls.find(parent) is None else parent

    @classmethod
    def new_id(cls, config: Config) -> str:
        """An id that no other study in this output has, for its folder is made with it.

        Ids are seconds, and in this one another study of the configuration may have begun.
        """
        while True:
            study_id = tracking.new_study_id()
            try:
                cls.path(config, study_id).mkdir(parents=True)
            except FileExistsError:
                time.sleep(_SECONDS_TO_THE_NEXT_ID)
            else:
                return study_id

    @staticmethod
    def path(config: Config, study_id: str) -> Path:
        """Where one execution of a study keeps its cells."""
        return config.output / "studies" / study_id

    @classmethod
    def begin(cls, config: Config, study_id: str) -> tuple[Path, bool]:
        """The folder of a study, made if it is not there; whether it was begun before."""
        folder = cls.path(config, study_id)
        folder.mkdir(parents=True, exist_ok=True)
        if cls.find(folder) is not None:
            return folder, True
        config.dump(folder / CONFIG_NAME)
        cls(study_id=study_id, tracking_uri=config.given_tracking_uri).write(folder)
        return folder, False
