from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cell import Cell
from pipelines.cli.resume import config_to_resume
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.run_folder import CONFIG_NAME, RESULT_NAME, RunFolder
from pipelines.study_folder import StudyFolder

Stop = Callable[..., Path]


@pytest.fixture
def stop(tmp_path: Path, load_quickstart: Callable[..., Config]) -> Stop:
    """Makes the folder of a run that has stopped; each of its workers had 16 examples a step."""

    def write(*overrides: str, strategy: str = "ddp", workers: int = 2) -> Path:
        folder = tmp_path / "run"
        load_quickstart("study.workers=[1]", *overrides).dump(folder / CONFIG_NAME)
        RunFolder.of("abc123", Cell("torch", strategy, workers), "study").write(folder)
        return folder

    return write


def test_a_run_goes_on_by_its_own_configuration_and_on_as_many_workers(stop: Stop) -> None:
    folder = stop("training.steps=50", "checkpoint.every_steps=5")

    config, workers = config_to_resume(folder, "torch", None, [])

    assert workers == 2
    assert config.study.workers == [2]
    assert (config.training.steps, config.checkpoint.every_steps) == (50, 5)
    assert config.training.batch_size_per_worker == 16


@pytest.mark.parametrize(("workers", "batch"), [(1, 32), (2, 16), (4, 8), (32, 1)])
def test_other_workers_share_the_same_global_batch(stop: Stop, workers: int, batch: int) -> None:
    config, found = config_to_resume(stop(), "torch", workers, [])

    assert found == workers
    assert config.study.workers == [workers]
    assert config.training.batch_size_per_worker == batch
    assert config.global_batch_size(workers) == 32


def test_a_run_may_change_its_workers_again_and_again(stop: Stop) -> None:
    folder = stop()
    for workers in (4, 1, 8, 2):
        config, _ = config_to_resume(folder, "torch", workers, [])
        config.dump(folder / CONFIG_NAME)
        RunFolder.of("abc123", Cell("torch", "ddp", workers), "study").write(folder)

        assert config.global_batch_size(workers) == 32


@pytest.mark.parametrize("workers", [3, 5, 64])
def test_a_batch_that_so_many_cannot_share_equally_is_refused(stop: Stop, workers: int) -> None:
    folder = stop()

    with pytest.raises(InputError) as raised:
        config_to_resume(folder, "torch", workers, [])

    assert str(raised.value) == (
        f"--workers {workers}: cannot share the run's global batch of 32 examples equally; "
        "take a divisor"
    )


def test_what_is_asked_for_besides_replaces_what_the_run_had(stop: Stop) -> None:
    folder = stop("checkpoint.every_steps=5", "checkpoint.keep=2")

    config, _ = config_to_resume(folder, "torch", None, ["checkpoint.keep=9", "network.hosts=2"])

    assert (config.checkpoint.every_steps, config.checkpoint.keep) == (5, 9)
    assert config.network.hosts == 2


def test_what_is_asked_for_wrongly_is_refused_with_the_runs_own_file(stop: Stop) -> None:
    folder = stop()

    with pytest.raises(InputError, match=r"run/config\.yaml: checkpoint\.kept: unknown key"):
        config_to_resume(folder, "torch", None, ["checkpoint.kept=9"])


def test_a_strategy_for_one_worker_does_not_go_on_with_two(stop: Stop) -> None:
    folder = stop("torch.strategy=single", strategy="single", workers=1)

    with pytest.raises(InputError, match=r"torch\.strategy 'single' runs one worker"):
        config_to_resume(folder, "torch", 2, [])


def test_another_frameworks_run_is_refused(stop: Stop) -> None:
    folder = stop()

    with pytest.raises(InputError) as raised:
        config_to_resume(folder, "tf", None, [])

    assert str(raised.value) == f"--resume {folder}: is a run of torch, not of tf"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run there"):
        config_to_resume(tmp_path, "torch", None, [])


def test_a_run_that_has_ended_is_refused(stop: Stop) -> None:
    folder = stop()
    (folder / RESULT_NAME).write_text("{}")

    with pytest.raises(InputError, match="run abc123 has ended"):
        config_to_resume(folder, "torch", None, [])


def test_a_run_whose_configuration_is_gone_is_refused_by_name(stop: Stop) -> None:
    folder = stop()
    (folder / CONFIG_NAME).unlink()

    with pytest.raises(InputError, match=r"run/config\.yaml: no such file"):
        config_to_resume(folder, "torch", None, [])


def test_a_studys_cell_is_gone_on_with_by_its_study(
    stop: Stop, load_quickstart: Callable[..., Config]
) -> None:
    study, _ = StudyFolder.begin(load_quickstart(), "20250601T120000Z")
    folder = stop().rename(study / "torch-ddp-weak-x2-r1")

    with pytest.raises(InputError) as raised:
        config_to_resume(folder, "torch", None, [])

    assert str(raised.value) == (
        f"--resume {folder}: is a study's, which measures whole runs only; go on with "
        f"`tandem study --resume {study}`"
    )
