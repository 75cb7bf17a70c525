"""The whole slice with the real frameworks: one small study from raw data to report.

Every test reads what one run of ``tandem run`` left behind; those at the end go on from there.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from pipelines.config import Config, load_config
from pipelines.dag import STAGES
from pipelines.environments import PROJECT_ROOT
from pipelines.goodput import LEDGER
from pipelines.ingest import Dataset
from pipelines.metrics import PHASES
from pipelines.runs import (
    COMPONENT_STARTUP_TAG,
    COMPONENT_WORK_TAG,
    COMPONENTS_TAG,
    FAULT_TAG,
    RunRecord,
)
from pipelines.strategies import FRAMEWORKS
from pipelines.tracking import read_runs

TANDEM = Path(sys.executable).with_name("tandem")
QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
STEPS, WARMUP_STEPS, REPEATS, WORKERS = 60, 10, 1, [1, 2]
OVERRIDES = [
    f"training.steps={STEPS}",
    f"training.warmup_steps={WARMUP_STEPS}",
    f"study.repeats={REPEATS}",
    f"study.workers={WORKERS}",
    "workload.thresholds={eval_accuracy: 0.5}",
]
STRATEGIES = {"tf": "multi_worker_mirrored", "torch": "ddp"}

Done = subprocess.CompletedProcess[str]
Tandem = Callable[..., Done]


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.both_frameworks,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slice")


@pytest.fixture(scope="module")
def config(folder: Path) -> Config:
    return load_config(QUICKSTART, [f"output={folder / 'out'}", *OVERRIDES])


@pytest.fixture(scope="module")
def tandem(folder: Path) -> Tandem:
    """The installed command, run in a folder of its own."""
    settings = [f"output={folder / 'out'}", *OVERRIDES]
    options = [word for setting in settings for word in ("--set", setting)]

    def run(*arguments: str) -> Done:
        command = [str(TANDEM), *arguments, "--config", str(QUICKSTART), *options]
        environment = {**os.environ, "NO_COLOR": "1"}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def done(tandem: Tandem) -> Done:
    finished = tandem("run", "--json")
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.fixture(scope="module")
def report(done: Done, config: Config) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((config.output / "report.json").read_text())
    return written


@pytest.fixture(scope="module")
def runs(done: Done, config: Config) -> dict[str, RunRecord]:
    """Every tracked run by its id."""
    return {run.run_id: run for run in read_runs(config)}


@pytest.fixture(scope="module")
def client(done: Done, config: Config) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(config.tracking_uri)


@pytest.fixture(scope="module")
def losses(report: dict[str, Any], client: Any) -> dict[tuple[str, int], list[float]]:
    """The training loss of every step, by framework and workers."""
    series = {}
    for cell in report["cells"]:
        history = client.get_metric_history(cell["mlflow_run_ids"][0], "train_loss")
        points = sorted((point.step, point.value) for point in history)
        assert [step for step, _ in points] == list(range(1, STEPS + 1))
        series[cell["framework"], cell["workers"]] = [value for _, value in points]
    return series


@pytest.fixture(scope="module")
def reruns(runs: dict[str, RunRecord]) -> dict[str, RunRecord]:
    """The second pipeline of each framework."""
    pipelines = [run for run in runs.values() if run.kind == "pipeline"]
    assert len(pipelines) == 4
    return {run.params["framework"]: run for run in pipelines if run.metrics["cached_stages"] > 0}


@pytest.fixture(scope="module")
def recoveries(runs: dict[str, RunRecord]) -> dict[str, RunRecord]:
    return {run.params["framework"]: run for run in runs.values() if run.kind == "recovery"}


def test_the_command_tells_its_story_on_standard_error(done: Done, config: Config) -> None:
    lines = done.stderr.splitlines()

    pipelines = ["pipeline tf", "pipeline tf", "pipeline torch", "pipeline torch"]  # and again
    told = ["ingest", *pipelines, "parity", "study", "ledger", "compare"]
    closed = [line.removeprefix("✓ ") for line in lines if line.startswith("✓ ")]
    assert [line[: len(title)] for line, title in zip(closed, told, strict=True)] == told
    assert not any(line.startswith("✗") for line in lines)
    report, ui, seconds = lines[-3:]
    assert str(config.output / "report.html") in report
    assert "`make ui`" in ui
    assert seconds.startswith("Done in ")


def test_standard_output_is_the_report(done: Done, report: dict[str, Any]) -> None:
    assert json.loads(done.stdout) == report


def test_the_report_names_the_study_and_the_data_it_trained_on(
    report: dict[str, Any], config: Config
) -> None:
    manifest = Dataset.open(config.dataset_dir).manifest

    assert report["study"] == "quickstart"
    assert report["dataset"]["fingerprint"] == manifest.fingerprint
    assert report["dataset"]["rows"] == manifest.rows("train") + manifest.rows("eval") == 1797
    assert report["failed"] == []


def test_every_cell_of_the_matrix_is_reported_once(report: dict[str, Any]) -> None:
    places = [(cell["framework"], cell["workers"]) for cell in report["cells"]]

    assert sorted(places) == [(name, count) for name in ("tf", "torch") for count in WORKERS]
    for cell in report["cells"]:
        assert cell["strategy"] == STRATEGIES[cell["framework"]]
        assert cell["scaling"] == "weak"
        assert len(cell["repeats"]) == len(cell["mlflow_run_ids"]) == REPEATS
        assert cell["median"] == median(cell["repeats"]) > 0
        assert cell["interval95"] is None  # one repeat says nothing of its spread
        assert 0.5 < cell["eval_metrics"]["eval_accuracy"] <= 1


def test_every_phase_took_time_and_together_they_are_the_wall_clock(
    report: dict[str, Any], runs: dict[str, RunRecord]
) -> None:
    for cell in report["cells"]:
        phases = dict(cell["phases"])
        assert tuple(phases) == PHASES
        within_a_percent = pytest.approx(cell["wall_seconds"], rel=0.01)
        assert sum(phases.values()) == within_a_percent
        (run_id,) = cell["mlflow_run_ids"]
        assert sum(runs[run_id].metrics[name] for name in LEDGER) == within_a_percent
        assert phases.pop("checkpoint_seconds") == 0  # nothing was to be saved
        assert all(seconds > 0 for seconds in phases.values())


def test_throughput_is_the_timed_examples_over_the_timed_seconds(
    report: dict[str, Any], config: Config
) -> None:
    for cell in report["cells"]:
        examples = config.global_batch_size(cell["workers"]) * (STEPS - WARMUP_STEPS)
        assert cell["median"] == pytest.approx(examples / cell["phases"]["train_seconds"])


def test_scaling_compares_each_framework_with_its_own_base_case(report: dict[str, Any]) -> None:
    medians = {(cell["framework"], cell["workers"]): cell["median"] for cell in report["cells"]}

    assert len(report["scaling"]) == len(medians)
    for point in report["scaling"]:
        framework, workers = point["framework"], point["workers"]
        assert point["base_workers"] == 1
        assert point["speedup"] == medians[framework, workers] / medians[framework, 1]
        assert point["efficiency"] == point["speedup"] / workers


def test_both_pipelines_ran_every_stage_and_pushed_a_blessed_model(
    report: dict[str, Any], config: Config
) -> None:
    assert set(report["pipelines"]) == {"tf", "torch"}
    for framework, pipeline in report["pipelines"].items():
        assert tuple(pipeline["stages"]) == STAGES
        assert all(seconds > 0 for seconds in pipeline["stages"].values())
        assert sum(pipeline["stages"].values()) < pipeline["seconds"]
        assert sum(pipeline["components"].values()) == pytest.approx(
            sum(pipeline["stages"].values())
        )
        assert pipeline["cached_stages"] == 0
        assert pipeline["blessed"] is True
        assert 0.5 <= pipeline["eval_metrics"]["eval_accuracy"] <= 1
        [model] = (config.output / "pipelines" / framework / "serving").iterdir()
        files = [path for path in model.rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) > 1000


def test_every_figure_leads_back_to_a_tracked_run(
    report: dict[str, Any], runs: dict[str, RunRecord]
) -> None:
    for cell in report["cells"]:
        for run_id, rate in zip(cell["mlflow_run_ids"], cell["repeats"], strict=True):
            run = runs[run_id]
            assert (run.kind, run.status) == ("cell", "FINISHED")
            assert run.metrics["examples_per_second"] == rate
            assert run.params["framework"] == cell["framework"]
            assert run.params["workers"] == str(cell["workers"])
    for split, cell in zip(report["splits"], report["cells"], strict=True):
        (run_id,) = split["mlflow_run_ids"]
        run = runs[run_id]
        assert (run.kind, run.status) == ("anatomy", "FINISHED")
        assert run.metrics["compute_step_seconds"] == split["compute_seconds"]
        assert split["step_seconds"] == cell["step_seconds"]
        parts = ("compute", "host", "input", "communication")
        assert sum(split[f"{part}_seconds"] for part in parts) == pytest.approx(
            cell["step_seconds"]
        )
    for framework, pipeline in report["pipelines"].items():
        run = runs[pipeline["mlflow_run_id"]]
        assert (run.kind, run.status) == ("pipeline", "FINISHED")
        assert run.params["framework"] == framework
        assert run.metrics["pipeline_seconds"] == pipeline["seconds"]
    for framework, kept in report["maintenance"].items():
        run = runs[kept["mlflow_run_id"]]
        assert (run.kind, run.status) == ("ledger", "FINISHED")
        assert run.params["framework"] == framework
        assert all(kept[name] == value for name, value in run.metrics.items())
        assert kept["manifest_lines"] > kept["config_fields"] > 0
        assert kept["details"]["metrics"] == run.metrics
        assert "needs the network" in kept["not_checked"]["libyears_behind"]
    [verdict] = report["parity"]
    assert runs[verdict["mlflow_run_id"]].kind == "parity"
    assert verdict["passed"]
    told = {
        run_id for each in report["environment"]["software"] for run_id in each["mlflow_run_ids"]
    }
    assert told == {
        run.run_id
        for run in runs.values()
        if run.kind == "cell" or (run.kind == "pipeline" and run.metrics["cached_stages"] == 0)
    }
    assert all(each["framework_version"] for each in report["environment"]["software"])


def test_what_running_each_side_costs_leads_back_to_tracked_runs(
    report: dict[str, Any], runs: dict[str, RunRecord]
) -> None:
    assert set(report["overhead"]) == set(report["cost"]) == set(FRAMEWORKS)
    for framework, side in report["overhead"].items():
        (cell,) = (runs[run_id] for run_id in side["mlflow_run_ids"])
        assert (cell.params["framework"], cell.params["workers"]) == (framework, "2")
        assert side["wall_seconds"] == cell.metrics["wall_seconds"]
        assert sum(side["goodput"].values()) == pytest.approx(side["wall_seconds"], rel=0.01)
        until_first_step = side["time_to_first_step_seconds"]
        assert sum(side["first_step"].values()) == pytest.approx(until_first_step, rel=0.01)
        first, again = (runs[run_id] for run_id in side["pipeline"]["mlflow_run_ids"])
        assert side["pipeline"]["overhead_seconds"] == first.metrics["pipeline_overhead_seconds"]
        assert side["pipeline"]["cached_rerun_seconds"] == again.metrics["pipeline_seconds"]
        recovery = runs[side["recovery"]["mlflow_run_id"]]
        assert side["recovery"]["recovery_seconds"] == recovery.metrics["recovery_seconds"]
        assert all(value for name, value in side["operation"].items())
        assert side["resources"]["network_bytes_per_step"] > 0
        cost = report["cost"][framework]
        assert cost["per_run"]["total"]["inputs"]["wall_seconds"] == side["wall_seconds"]
        assert cost["per_model"]["total"]["amount"] > 0
        assert set(cost["per_model"]["total"]["mlflow_run_ids"]) <= set(runs)
    indicators = [
        each for criterion in report["scorecard"]["criteria"] for each in criterion["indicators"]
    ]
    told = {
        run_id
        for each in indicators
        for name in FRAMEWORKS
        for run_id in each[name]["mlflow_run_ids"]
    }
    assert told and told <= set(runs)


def test_nothing_but_the_study_is_tracked(
    report: dict[str, Any],
    runs: dict[str, RunRecord],
    reruns: dict[str, RunRecord],
    recoveries: dict[str, RunRecord],
) -> None:
    cells = {run_id for cell in report["cells"] for run_id in cell["mlflow_run_ids"]}
    pipelines = {pipeline["mlflow_run_id"] for pipeline in report["pipelines"].values()}

    kinds = ("summary", "parity", "ledger")
    others = {run.run_id for run in runs.values() if run.kind not in kinds}
    anatomies = {run_id for split in report["splits"] for run_id in split["mlflow_run_ids"]}
    beside = {run.run_id for run in [*reruns.values(), *recoveries.values()]}
    assert others == cells | pipelines | anatomies | beside
    assert sum(run.kind == "parity" for run in runs.values()) == 1
    assert sum(run.kind == "ledger" for run in runs.values()) == 2
    assert {run.status for run in runs.values()} == {"FINISHED"}


def test_every_training_run_has_the_dataset_as_its_input(
    report: dict[str, Any], client: Any
) -> None:
    for cell in report["cells"]:
        for run_id in cell["mlflow_run_ids"]:
            [given] = client.get_run(run_id).inputs.dataset_inputs
            assert given.dataset.digest == report["dataset"]["fingerprint"][:36]


@pytest.mark.parametrize("workers", WORKERS)
def test_both_frameworks_train_the_same_model_on_the_same_batches(
    losses: dict[tuple[str, int], list[float]], workers: int
) -> None:
    tf, torch = losses["tf", workers], losses["torch", workers]

    assert tf[0] == pytest.approx(torch[0], abs=1e-5, rel=0)
    assert tf[:10] == pytest.approx(torch[:10], abs=1e-4, rel=0)


def test_training_begins_at_chance_and_learns(
    losses: dict[tuple[str, int], list[float]],
) -> None:
    for series in losses.values():
        assert series[0] == pytest.approx(math.log(10), rel=0.4)  # random logits cost some
        assert sum(series[-10:]) < 0.5 * sum(series[:10])


class References(HTMLParser):
    """What a page loads; where a reader may go from it is no part of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag != "a":
            names = ("src", "href", "srcset")
            self.found += [value or "" for name, value in attrs if name in names]


def test_the_page_holds_everything_it_shows(done: Done, config: Config) -> None:
    page = (config.output / "report.html").read_text(encoding="utf-8")
    references = References()
    references.feed(page)

    assert {"html", "body", "table", "script"} <= references.tags
    inside = ("#", "data:")
    assert [found for found in references.found if not found.startswith(inside)] == []
    assert "@import" not in page.split("<script", 1)[0]


def test_the_command_leaves_nothing_outside_its_output_folder(done: Done, folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["out"]


def test_ingesting_again_reuses_the_dataset(done: Done, tandem: Tandem) -> None:
    again = tandem("ingest")

    assert again.returncode == 0
    assert again.stderr.rstrip().endswith("reused")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_pipeline_is_more_than_the_work_of_its_components(
    report: dict[str, Any], runs: dict[str, RunRecord], framework: str
) -> None:
    pipeline = report["pipelines"][framework]
    run = runs[pipeline["mlflow_run_id"]]
    work, startup = (
        json.loads(run.tags[tag]) for tag in (COMPONENT_WORK_TAG, COMPONENT_STARTUP_TAG)
    )

    assert list(work) == list(startup) == list(pipeline["components"])
    assert run.metrics["pipeline_work_seconds"] == pytest.approx(sum(work.values()))
    assert run.metrics["pipeline_startup_seconds"] == pytest.approx(sum(startup.values()))
    overhead = run.metrics["pipeline_overhead_seconds"]
    assert overhead == pytest.approx(pipeline["seconds"] - sum(work.values()))
    assert overhead > sum(startup.values()) > 0


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_second_pipeline_run_is_answered_from_the_cache(
    done: Done, report: dict[str, Any], reruns: dict[str, RunRecord], framework: str
) -> None:
    rerun, first = reruns[framework], report["pipelines"][framework]

    assert list(json.loads(rerun.tags[COMPONENTS_TAG])) == list(first["components"])
    assert rerun.metrics["cached_stages"] == len(first["components"])
    assert rerun.metrics["blessed"] == 1
    assert rerun.metrics["eval_accuracy"] == first["eval_metrics"]["eval_accuracy"]
    assert rerun.metrics["pipeline_work_seconds"] == rerun.metrics["pipeline_processes"] == 0
    assert rerun.metrics["pipeline_overhead_seconds"] == rerun.metrics["pipeline_seconds"]
    assert f"{len(first['components'])} components cached" in done.stderr


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_killed_worker_costs_some_steps_and_no_example(
    recoveries: dict[str, RunRecord],
    losses: dict[tuple[str, int], list[float]],
    client: Any,
    framework: str,
) -> None:
    run = recoveries[framework]
    history = client.get_metric_history(run.run_id, "train_loss")
    points = sorted((point.step, point.value) for point in history)

    assert run.tags[FAULT_TAG] == "kill -9 of worker 1"
    assert (run.params["strategy"], run.params["workers"]) == (STRATEGIES[framework], "2")
    assert run.metrics["restarts"] == 1
    assert 0 <= run.metrics["lost_steps"] < STEPS
    told = run.metrics["notice_seconds"] + run.metrics["recovery_seconds"]
    assert 0 < told < run.metrics["wall_seconds"]
    # The same work as the cell's, which nothing has disturbed.
    assert [step for step, _ in points] == list(range(1, STEPS + 1))
    assert [loss for _, loss in points] == losses[framework, 2]


def test_comparing_again_comes_to_the_same_medians(report: dict[str, Any], tandem: Tandem) -> None:
    again = tandem("compare", "--json")

    assert again.returncode == 0, again.stderr
    compared = json.loads(again.stdout)
    for part in ("study_id", "dataset", "settings", "cells", "scaling", "differences"):
        assert compared[part] == report[part]


@pytest.fixture
def altered_shard(done: Done, config: Config) -> Iterator[Path]:
    """One shard of the study's dataset with one byte changed, mended afterwards."""
    dataset = Dataset.open(config.dataset_dir)
    shard = dataset.folder / dataset.shards("train")[0].path
    content = shard.read_bytes()
    middle = len(content) // 2
    shard.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    yield shard
    shard.write_bytes(content)


def test_no_study_is_made_of_an_altered_shard(
    altered_shard: Path, tandem: Tandem, config: Config
) -> None:
    before = {run.run_id for run in read_runs(config)}

    refused = tandem("study")

    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {altered_shard}: shard was altered")
    assert len(refused.stderr.splitlines()) == 1
    assert {run.run_id for run in read_runs(config)} == before
