"""By which configuration a run goes on: its own, with the global batch shared out anew."""

from pathlib import Path

from pipelines.config import Config, load_config
from pipelines.errors import InputError
from pipelines.run_folder import CONFIG_NAME, RunFolder
from pipelines.strategies import Framework
from pipelines.study_folder import StudyFolder

__all__ = ["config_to_resume"]


def config_to_resume(
    folder: Path, framework: Framework, workers: int | None, overrides: list[str]
) -> tuple[Config, int]:
    """The configuration of a folder's run, and the workers that it goes on with.

    By default they are as many as before. The global batch stays whatever their number, or the run
    would be another one.

    Raises:
        InputError: if the folder has no run of the framework, or a study's, or its batch cannot be
            shared so.
    """
    held = RunFolder.to_resume(folder)
    if held.framework != framework:
        raise InputError(f"--resume {folder}: is a run of {held.framework}, not of {framework}")
    if (study := StudyFolder.around(folder)) is not None:
        raise InputError(
            f"--resume {folder}: is a study's, which measures whole runs only; go on with "
            f"`tandem study --resume {study}`"
        )
    workers = workers or held.workers
    before = load_config(folder / CONFIG_NAME)
    examples = before.global_batch_size(held.workers)
    if examples % workers:
        raise InputError(
            f"--workers {workers}: cannot share the run's global batch of {examples} examples "
            "equally; take a divisor"
        )
    shared_out = [
        f"study.workers=[{workers}]",
        f"training.batch_size_per_worker={examples // workers}",
    ]
    if held.tracking_uri is not None:
        shared_out.append(f"tracking.uri={held.tracking_uri}")
    return load_config(folder / CONFIG_NAME, [*shared_out, *overrides]), workers
