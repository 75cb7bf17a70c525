import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.tracking import experiments


def test_study_ids_sort_by_time() -> None:
    first = tracking.new_study_id()
    time.sleep(1.1)  # a study takes longer

    assert first < tracking.new_study_id()


@pytest.mark.usefixtures("elsewhere")
def test_a_fresh_store_is_made_with_its_folder_and_only_once(
    load_quickstart: Callable[..., Config], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    config = load_quickstart()

    made = tracking.prepare_store(config)

    assert tracking.prepare_store(config) == made
    assert tracking.experiment_id(config) == made
    assert (tmp_path / "out" / "mlflow.db").is_file()
    found = MlflowClient(config.tracking_uri).search_experiments()
    assert sorted(experiment.name for experiment in found) == ["Default", "quickstart"]


def test_first_commands_at_once_make_one_store_and_one_experiment(
    quickstart: Config, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = [*pool.map(tracking.prepare_store, [quickstart] * 2)]

    assert made == [tracking.experiment_id(quickstart)] * 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mlflow.db"]


def test_an_experiment_that_another_makes_meanwhile_is_found(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = experiments._find_experiment, []

    def look_too_early(client: Any, asked: Config) -> Any:
        looked.append(asked.name)
        if len(looked) > 1:
            return look(client, asked)
        monkeypatch.setattr(experiments, "_find_experiment", look)
        tracking.prepare_store(config)  # another process does
        monkeypatch.setattr(experiments, "_find_experiment", look_too_early)
        return None

    monkeypatch.setattr(experiments, "_find_experiment", look_too_early)

    assert tracking.prepare_store(config) == tracking.experiment_id(config)


@pytest.mark.usefixtures("elsewhere")
def test_a_local_stores_artifacts_lie_under_the_output_folder(
    config: Config, client: Any, tmp_path: Path
) -> None:
    experiment = client.get_experiment(tracking.prepare_store(config))

    assert experiment.name == config.name
    assert experiment.artifact_location == (tmp_path / "out" / "artifacts").as_uri()


def test_a_relative_output_folder_does_not_make_artifacts_depend_on_where_one_stands(
    uri: str,
    client: Any,
    tmp_path: Path,
    load_quickstart: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_quickstart("output=here", f"name={tmp_path.name}", f"tracking.uri={uri}")

    experiment = client.get_experiment(tracking.prepare_store(config))

    assert experiment.artifact_location == (tmp_path / "here" / "artifacts").as_uri()


def test_a_deleted_experiment_is_refused_until_it_is_restored(config: Config, client: Any) -> None:
    experiment = tracking.prepare_store(config)
    client.delete_experiment(experiment)

    with pytest.raises(InputError, match=f"name: .*'{config.name}' was deleted .*restore"):
        tracking.prepare_store(config)
    client.restore_experiment(experiment)

    assert tracking.prepare_store(config) == experiment


@pytest.mark.parametrize("read", [tracking.read_runs, tracking.experiment_id])
def test_reading_never_makes_a_store(
    read: Callable[[Config], object], quickstart: Config, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"mlflow\.db: .*`tandem run`"):
        read(quickstart)

    assert list(tmp_path.iterdir()) == []


def test_a_study_without_an_experiment_has_no_id(config: Config) -> None:
    tracking.prepare_store(config.model_copy(update={"name": "known"}))

    with pytest.raises(InputError, match=f"has no study '{config.name}'; run one with"):
        tracking.experiment_id(config)


def test_an_experiment_is_tagged_and_tagged_anew(config: Config) -> None:
    tracking.prepare_store(config)

    tracking.tag_experiment(config, "view", "first")
    tracking.tag_experiment(config, "view", "second")

    assert tracking.experiment_tags(config)["view"] == "second"


def test_a_study_that_is_not_there_is_answered_with_the_known_ones(config: Config) -> None:
    tracking.prepare_store(config.model_copy(update={"name": "night"}))

    with pytest.raises(InputError, match=r"or name one that it has: .*night"):
        tracking.experiment_tags(config)
