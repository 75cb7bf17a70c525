"""Pipelines as ``tandem submit --dry-run`` writes them, every task in a container of its image."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.strategies import Framework
from pipelines.submit.submission import PipelineName
from pipelines.tracking import read_runs

pytestmark = [pytest.mark.docker, pytest.mark.both_frameworks, pytest.mark.timeout(3600)]

TASKS = {
    "tf": {
        *("ExampleGen", "SchemaGen", "StatisticsGen", "ExampleValidator"),
        *("Transform", "Trainer", "Evaluator", "Pusher"),
    },
    "torch": {"validate", "transform", "train", "evaluate", "bless", "push"},
}

Run = Callable[[PipelineName], set[str]]
OnClaim = Callable[[Path], Path]


def test_ingestion_makes_the_same_dataset_on_the_claim_as_here(
    dataset: Dataset, digits: Dataset
) -> None:
    assert dataset.manifest.fingerprint == digits.manifest.fingerprint


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_a_whole_dag_goes_from_the_dataset_to_a_published_model(
    run_pipeline: Run,
    submitted: Config,
    dataset: Dataset,
    on_claim: OnClaim,
    framework: Framework,
) -> None:
    assert run_pipeline(framework) == TASKS[framework]

    serving = on_claim(submitted.output) / "pipelines" / framework / "serving"
    [published] = serving.iterdir()
    assert published.name.isdigit()
    print(json.dumps(sorted(str(each.relative_to(published)) for each in published.rglob("*"))))
    

def test_a_study_goes_from_raw_data_to_the_report(
    run_pipeline: Run, submitted: Config, tracked: Config, on_claim: OnClaim
) -> None:
    ran = run_pipeline("study")

    cells = {name for name in ran if name.startswith("train-cell")}
    assert len(cells) == 4
    assert ran - cells == {"ingest", "software", "software-2", "parity", "compare"}
    runs = [run for run in read_runs(tracked) if run.kind == "cell"]
    assert {(run.params["framework"], run.params["workers"]) for run in runs} == {
        (framework, workers) for framework in ("tf", "torch") for workers in ("1", "2")
    }
    assert {run.status for run in read_runs(tracked)} == {"FINISHED"}
    assert "html" in (on_claim(submitted.output) / "report.html").read_text()[:200].lower()
