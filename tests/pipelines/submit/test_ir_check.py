from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli.narrator import Narrator
from pipelines.cli.submit import write_dry_run
from pipelines.errors import WorkError
from pipelines.submit.ir_check import check_pipeline, find_faults
from pipelines.submit.surroundings import read_pipeline, write_pipeline


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    from pipelines.config import load_config
    from pipelines.environments import PROJECT_ROOT

    folder = tmp_path_factory.mktemp("dry") / "run"
    config = load_config(PROJECT_ROOT / "configs" / "quickstart.yaml")
    write_dry_run(config, Narrator(), ["study"], folder)
    return read_pipeline(folder / "study_pipeline.yaml")


def at(specification: dict[str, Any], *path: str) -> dict[str, Any]:
    for key in path:
        specification = specification[key]
    return specification


TASKS = ("root", "dag", "tasks")
EXECUTORS = ("deploymentSpec", "executors")


def lose_a_component(spec: dict[str, Any]) -> None:
    del spec["components"]["comp-parity"]


def lose_an_executor(spec: dict[str, Any]) -> None:
    del at(spec, *EXECUTORS)["exec-compare"]


def lose_an_image(spec: dict[str, Any]) -> None:
    at(spec, *EXECUTORS, "exec-ingest", "container")["image"] = ""


def lose_a_task(spec: dict[str, Any]) -> None:
    del at(spec, *TASKS)["software"]


def misname_an_output(spec: dict[str, Any]) -> None:
    given = at(spec, *TASKS, "parity", "inputs", "parameters", "tf_software")
    given["taskOutputParameter"]["outputParameterKey"] = "version"


def forget_an_input(spec: dict[str, Any]) -> None:
    del at(spec, *TASKS, "compare", "inputs", "parameters")["study_id"]


def invent_an_input(spec: dict[str, Any]) -> None:
    at(spec, *TASKS, "ingest", "inputs", "parameters")["speed"] = {}


def wait_for_nobody(spec: dict[str, Any]) -> None:
    at(spec, *TASKS, "compare")["dependentTasks"] = ["train-cell-99"]


def keep_what_nobody_uses(spec: dict[str, Any]) -> None:
    at(spec, *EXECUTORS)["exec-left-over"] = {"container": {"image": "x"}}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_a_component, "task parity is of component comp-parity, which is not there"),
        (lose_an_executor, "component comp-compare has no executor exec-compare"),
        (lose_an_image, "executor exec-ingest has no image"),
        (lose_a_task, "tf_software comes from task software, which is not there"),
        (misname_an_output, "software's version, which it does not make"),
        (forget_an_input, "task compare is not given study_id"),
        (invent_an_input, "task ingest is given speed, which comp-ingest does not take"),
        (wait_for_nobody, "task compare comes after train-cell-99, which is not there"),
        (keep_what_nobody_uses, "executor exec-left-over is no component's"),
    ],
)
def test_what_is_missing_in_a_pipeline_is_named(
    whole: tuple[dict[str, Any], dict[str, Any]],
    damage: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    specification, platform = deepcopy(whole)
    assert list(find_faults(specification, platform)) == []

    damage(specification)

    assert any(said in fault for fault in find_faults(specification, platform))


def test_a_platform_that_speaks_of_no_executor_is_a_fault(
    whole: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    specification, platform = deepcopy(whole)
    of_executors = at(platform, "platforms", "kubernetes", *EXECUTORS)
    of_executors["exec-gone"] = {}

    [fault] = find_faults(specification, platform)
    assert "exec-gone" in fault


def test_a_pipeline_that_is_not_whole_or_that_kfp_cannot_load_is_refused(
    whole: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    specification, platform = deepcopy(whole)
    file = tmp_path / "pipeline.yaml"
    write_pipeline(file, specification, platform)
    check_pipeline(file)

    specification["schemaVersion"] = {"not": "a version"}
    write_pipeline(file, specification, platform)
    with pytest.raises(WorkError, match="kfp cannot load it"):
        check_pipeline(file)
    lose_a_task(specification)
    write_pipeline(file, specification, platform)
    with pytest.raises(WorkError, match="not whole"):
        check_pipeline(file)
