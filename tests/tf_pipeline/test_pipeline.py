from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.config import Config
from pipelines.dag import PipelineResult
from pipelines.ingest import Dataset
from pipelines.metrics import METRICS
from pipelines.pipeline_run import run_pipeline
from pipelines.strategies import Framework
from tf_pipeline.pipeline import STAGE_OF
from tf_pipeline.runners import run_local

COMPONENTS = [
    "ExampleGen",
    "SchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "Transform",
    "Trainer",
    "Evaluator",
    "Pusher",
]
BEAM = {"ExampleGen", "StatisticsGen", "Transform", "Evaluator"}
WITHOUT_A_BLESSING = COMPONENTS  # the Pusher runs too, and looks for the blessing itself

Shrunk = Callable[..., Config]


@dataclass(frozen=True)
class DagRun:
    """A run of the DAG, and what was published when it had ended."""

    config: Config
    result: PipelineResult
    published: list[str]
    announced: list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def asked(
    load_shrunk: Shrunk, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Shrunk:
    """The config of a DAG whose model is soon good enough, with overrides."""
    folder = tmp_path_factory.mktemp("dag")

    def load(*overrides: str) -> Config:
        return load_shrunk(
            f"output={folder}",
            f"data.output={dataset.folder}",
            "training.steps=60",
            "training.batch_size_per_worker=64",
            "workload.thresholds.eval_accuracy=0.5",
            *overrides,
        )

    return load


@pytest.fixture(scope="module")
def first(asked: Shrunk, framework: Framework, dataset: Dataset) -> DagRun:
    """As ``tandem pipeline`` runs it: in a process of its own, and tracked."""
    announced: list[tuple[str, int, int]] = []
    result, _ = run_pipeline(
        asked(), framework, dataset, "study-1", lambda *said: announced.append(said)
    )
    return DagRun(asked(), result, published(asked(), framework), announced)


@pytest.fixture(scope="module")
def again(asked: Shrunk, framework: Framework, first: DagRun) -> DagRun:
    """The same once more, after somebody else has published a later version."""
    later = Path(first.published[0]).with_name("9999999999")
    later.mkdir()
    result = run_local(asked(), asked().output / "pipelines" / framework)
    later.rmdir()
    return DagRun(asked(), result, published(asked(), framework), [])


@pytest.fixture(scope="module")
def unreached(asked: Shrunk, framework: Framework, again: DagRun) -> DagRun:
    """With a threshold that the model does not reach."""
    config = asked("workload.thresholds.eval_accuracy=0.9999")
    result = run_local(config, config.output / "pipelines" / framework)
    return DagRun(config, result, published(config, framework), [])


def published(config: Config, framework: Framework) -> list[str]:
    serving = config.output / "pipelines" / framework / "serving"
    return sorted(str(folder) for folder in serving.iterdir())


def test_every_component_ran_in_order(first: DagRun) -> None:
    assert list(first.result.components) == COMPONENTS == list(STAGE_OF)
    assert first.result.cached == []
    assert min(first.result.components.values()) > 0


def test_every_component_was_announced_as_it_began(first: DagRun) -> None:
    of = len(COMPONENTS)

    assert first.announced == [(name, at, of) for at, name in enumerate(COMPONENTS, start=1)]


def test_the_stages_share_the_components_seconds(first: DagRun) -> None:
    stages = first.result.stages

    assert list(stages) == ["validate", "transform", "train", "evaluate", "push"]
    assert min(stages.values()) > 0
    assert sum(stages.values()) == pytest.approx(sum(first.result.components.values()))


def test_every_component_tells_of_its_start_up_and_of_its_work(first: DagRun) -> None:
    work, startup = first.result.work, first.result.startup

    assert list(work) == list(startup) == COMPONENTS
    assert min(*work.values(), *startup.values()) > 0
    assert first.result.processes == len(BEAM)  # for each TFX packages itself, in another process


def test_a_blessed_model_is_published_under_a_version_of_its_own(first: DagRun) -> None:
    assert first.result.blessed
    assert first.result.metrics["eval_accuracy"] > 0.5
    assert first.published == [first.result.pushed_to]
    assert Path(first.published[0]).name.isdigit()


def test_the_published_model_scores_what_the_dag_says_it_scores(
    first: DagRun, dataset: Dataset, run_exported: Callable[[Path, np.ndarray], np.ndarray]
) -> None:
    columns = dataset.columns("eval")

    probabilities = run_exported(Path(first.published[0]), columns["image"])

    accuracy = (probabilities.argmax(axis=1) == columns["label"]).mean()
    assert first.result.metrics["eval_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_the_dag_is_tracked_as_a_finished_run(first: DagRun, framework: Framework) -> None:
    client = MlflowClient(first.config.tracking_uri)
    experiment = client.get_experiment_by_name(first.config.name)

    (run,) = client.search_runs([experiment.experiment_id])

    assert run.info.status == "FINISHED"
    assert run.data.params["framework"] == framework
    assert set(run.data.metrics) <= set(METRICS)
    assert run.data.metrics["blessed"] == 1
    assert run.data.metrics["cached_stages"] == 0
    assert run.data.metrics["eval_accuracy"] == pytest.approx(first.result.metrics["eval_accuracy"])
    assert run.data.metrics["train_stage_seconds"] == first.result.stages["train"]
    work, startup = (run.data.metrics[f"pipeline_{part}_seconds"] for part in ("work", "startup"))
    assert work == pytest.approx(sum(first.result.work.values()))
    assert 0 < work + startup < run.data.metrics["pipeline_seconds"]


def test_what_has_not_changed_comes_from_the_cache(first: DagRun, again: DagRun) -> None:
    assert list(again.result.components) == COMPONENTS
    assert again.result.cached == COMPONENTS
    assert again.result.processes == 0
    assert again.result.blessed
    assert again.result.metrics["eval_accuracy"] == first.result.metrics["eval_accuracy"]


def test_a_cached_run_publishes_nothing_new(first: DagRun, again: DagRun) -> None:
    assert again.published == first.published


def test_a_cached_run_names_the_version_it_published_not_a_later_one(
    first: DagRun, again: DagRun
) -> None:
    assert again.result.pushed_to == first.result.pushed_to


def test_a_model_below_the_threshold_is_neither_blessed_nor_published(
    first: DagRun, unreached: DagRun
) -> None:
    assert list(unreached.result.components) == WITHOUT_A_BLESSING
    assert not unreached.result.blessed
    assert unreached.result.metrics["eval_accuracy"] < 0.9999
    assert unreached.result.pushed_to is None
    assert unreached.published == first.published
