import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import compiler, local

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.study import plan
from pipelines.submit import study_pipeline
from pipelines.submit.study_pipeline import build_ingest_pipeline, build_study_pipeline
from pipelines.submit.surroundings import read_pipeline


@pytest.fixture
def compiled(tmp_path: Path, load_submitted: Callable[..., Config]) -> Callable[..., Any]:
    def compiled(*overrides: str) -> tuple[Config, dict[str, Any]]:
        config = load_submitted(*overrides)
        file = tmp_path / "study.yaml"
        compiler.Compiler().compile(build_study_pipeline(config), str(file))
        return config, read_pipeline(file)[0]

    return compiled


def cells_of(specification: dict[str, Any]) -> dict[str, dict[str, Any]]:
    tasks = specification["root"]["dag"]["tasks"]
    return {name: task for name, task in tasks.items() if name.startswith("train-cell")}


def test_every_cell_of_the_matrix_is_a_task_between_parity_and_comparison(
    compiled: Callable[..., Any],
) -> None:
    config, specification = compiled()

    tasks = specification["root"]["dag"]["tasks"]
    cells = cells_of(specification)
    assert [task["taskInfo"]["name"] for task in cells.values()] != []
    assert {task["taskInfo"]["name"] for task in cells.values()} == {
        cell.name for cell in plan(config)
    }
    assert len(cells) == 12
    assert set(tasks) - set(cells) == {"ingest", "software", "software-2", "parity", "compare"}
    assert {"software", "software-2"} <= set(tasks["parity"]["dependentTasks"])
    assert "parity" in cells["train-cell"]["dependentTasks"]


@pytest.mark.parametrize("lanes", [1, 5])
def test_no_more_cells_run_at_once_than_are_allowed(
    compiled: Callable[..., Any], lanes: int
) -> None:
    _, specification = compiled(f"cluster.parallelism={lanes}")
    cells = cells_of(specification)
    names = ["train-cell", *(f"train-cell-{number}" for number in range(2, 13))]

    for number, name in enumerate(names):
        before = names[number - lanes] if number >= lanes else "parity"
        assert set(cells[name]["dependentTasks"]) == {before, "ingest"}
    last = specification["root"]["dag"]["tasks"]["compare"]["dependentTasks"]
    assert set(last) == {*names[-lanes:], "ingest"}


def test_nothing_is_cached_a_cell_is_tried_again_and_the_report_is_a_page(
    compiled: Callable[..., Any],
) -> None:
    _, specification = compiled()

    for name, task in specification["root"]["dag"]["tasks"].items():
        assert not task["cachingOptions"].get("enableCache")
        assert ("retryPolicy" in task) == name.startswith("train-cell")
    report = specification["components"]["comp-compare"]["outputDefinitions"]["artifacts"]["report"]
    assert report["artifactType"]["schemaTitle"] == "system.HTML"


def test_each_framework_is_asked_in_its_own_image_with_its_gpus(
    compiled: Callable[..., Any],
) -> None:
    _, specification = compiled("training.device=auto", "cluster.accelerator.kind=gpu")
    executors = specification["deploymentSpec"]["executors"]

    images = {label: executor["container"]["image"] for label, executor in executors.items()}
    assert images["exec-software"] == "tandem-tf:0.1.0-cuda"
    assert images["exec-software-2"] == "tandem-torch:0.1.0-cuda"
    assert {images[label] for label in images if "software" not in label} == {"tandem-core:0.1.0"}
    accelerator = executors["exec-software"]["container"]["resources"]["accelerator"]
    assert accelerator["resourceType"] == "nvidia.com/gpu"


def test_a_study_pipeline_has_no_path_of_this_machine(
    compiled: Callable[..., Any], tmp_path: Path
) -> None:
    text = json.dumps(compiled()[1])

    for folder in (PROJECT_ROOT, tmp_path, Path.home()):
        assert str(folder) not in text
    assert "/mnt/tandem/tandem/quickstart" in text


CELL = json.dumps(asdict(Cell("torch", "ddp", 1)))
NO_CONFIGURATION = '{"name": 7}'


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ("ingest", []),
        ("software", ["torch"]),
        ("parity", ["STUDY-ID", "{}", "{}"]),
        ("train_cell", ["STUDY-ID", CELL]),
        ("compare", ["STUDY-ID", SimpleNamespace(path="/none/report")]),
    ],
)
def test_a_step_that_fails_as_expected_ends_in_one_line_and_a_code(
    body: str, arguments: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        getattr(study_pipeline, body)(NO_CONFIGURATION, *arguments)

    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: step: name: ")


def test_the_reason_stands_last_in_a_steps_log(
    tmp_path: Path,
    load_quickstart: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(PROJECT_ROOT)  # the steps import the packages from where they are started
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))

    with pytest.raises(RuntimeError, match="ingest"):
        build_ingest_pipeline(load_quickstart())(settings=NO_CONFIGURATION)

    said = capfd.readouterr().out.splitlines()
    end = next(at for at, line in enumerate(said) if "finished with status" in line)
    log = [line.strip() for line in said[:end] if line.strip()]
    assert log[-1].startswith("error: step: name: ")
    assert not [line for line in log if "Traceback" in line]


@pytest.mark.long
@pytest.mark.both_frameworks
def test_the_study_pipeline_runs_here_from_raw_data_to_the_report(
    tmp_path: Path, load_quickstart: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_quickstart("study.workers=[1]", "study.repeats=1")
    monkeypatch.chdir(PROJECT_ROOT)  # the steps import the packages from where they are started
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path / "root"))

    build_study_pipeline(config)()

    [ran] = (tmp_path / "root").iterdir()
    assert {each.name for each in ran.iterdir()} == {
        *("ingest", "software", "software-2", "parity", "train-cell", "train-cell-2", "compare")
    }
    page = (ran / "compare" / "report").read_text()
    assert page == (config.output / "report.html").read_text()
    runs = tracking.read_runs(config)
    cells = [run for run in runs if run.kind == "cell"]
    assert {run.params["framework"] for run in cells} == {"tf", "torch"}
    assert {run.status for run in runs} == {"FINISHED"}
    [verdict] = [run for run in runs if run.kind == "parity"]
    assert verdict.metrics["parity_passed"] == 1
    assert verdict.params["tf_framework_version"].startswith("tensorflow")
