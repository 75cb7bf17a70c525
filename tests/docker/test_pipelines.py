"""Pipelines as ``tandem submit --dry-run`` writes them, every task in a container of its image."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config
from pipelines.ingest import Dataset
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.submit.submission import PipelineName
from pipelines.tracking import read_runs
from tests.docker.cluster import ContainerCluster

pytestmark = [pytest.mark.docker, pytest.mark.both_frameworks, pytest.mark.timeout(3600)]

TASKS = {
    "tf": {
        *("ExampleGen", "SchemaGen", "StatisticsGen", "ExampleValidator"),
        *("Transform", "Trainer", "Evaluator", "Pusher"),
    },
    "torch": {"validate", "transform", "train", "evaluate", "bless", "push"},
}
MODEL_FILE = {"tf": "saved_model.pb", "torch": "model.pt2"}

Run = Callable[[PipelineName], Path]
OnClaim = Callable[[Path], Path]


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_ingestion_makes_the_same_dataset_on_the_claim_as_here(
    dataset: Dataset, digits: Dataset
) -> None:
    assert dataset.manifest.fingerprint == digits.manifest.fingerprint


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_whole_dag_goes_from_the_dataset_to_a_published_model(
    run_pipeline: Run, submitted: Config, on_claim: OnClaim, framework: Framework
) -> None:
    ran = run_pipeline(framework)

    assert names(ran) == TASKS[framework]
    [published] = (on_claim(submitted.output) / "pipelines" / framework / "serving").iterdir()
    assert published.name.isdigit()
    assert (published / MODEL_FILE[framework]).stat().st_size > 1000


def test_a_study_goes_from_raw_data_to_the_report_by_training_jobs(
    run_pipeline: Run,
    cluster: ContainerCluster,
    submitted: Config,
    tracked: Config,
    on_claim: OnClaim,
) -> None:
    before = {*cluster.jobs}
    ran = run_pipeline("study")

    cells = {name for name in names(ran) if name.startswith("train-cell")}
    assert len(cells) == 4
    assert names(ran) - cells == {"ingest", "software", "software-2", "parity", "compare"}
    runs = [run for run in read_runs(tracked) if run.kind in ("cell", "parity")]
    assert {run.status for run in runs} == {"FINISHED"}
    [verdict] = [run for run in runs if run.kind == "parity"]
    assert verdict.metrics["parity_passed"] == 1
    measured = [(run.params["framework"], run.params["workers"]) for run in runs if run != verdict]
    assert sorted(measured) == [("tf", "1"), ("tf", "2"), ("torch", "1"), ("torch", "2")]
    created = [job for name, job in cluster.jobs.items() if name not in before]
    assert {job["spec"]["trainer"]["numNodes"] for job in created} == {1, 2}
    assert cluster.pods == {}, "all were removed when they had ended well"
    page = (ran / "compare" / "report").read_text()
    assert page == (on_claim(submitted.output) / "report.html").read_text()
