from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp.components import load_component_from_file

from pipelines.config import Config
from pipelines.dag import DagEnvironment
from pipelines.environments import PROJECT_ROOT
from pipelines.submit.ir_check import check_pipeline
from tf_pipeline.pipeline import STAGE_OF
from tf_pipeline.runners import compile_kubeflow

IMAGE = "registry.example/tandem-tf:0.1"
TASKS = [
    "Evaluator",
    "ExampleGen",
    "ExampleValidator",
    "Pusher",
    "SchemaGen",
    "StatisticsGen",
    "Trainer",
    "Transform",
]


@pytest.fixture(scope="module")
def compiled(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    environment = DagEnvironment(
        dataset="gs://bucket/data",
        artifacts="gs://bucket/artifacts",
        serving="gs://bucket/serving",
        image=IMAGE,
    )
    return compile_kubeflow(config, environment, tmp_path_factory.mktemp("compiled") / "yaml")


@pytest.fixture
def spec(compiled: Path) -> dict[str, Any]:
    return next(iter(yaml.safe_load_all(compiled.read_text())))


def dags(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The root and every DAG inside a component."""
    yield spec["root"]["dag"]
    for component in spec["components"].values():
        if "dag" in component:
            yield component["dag"]


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"]["executors"]
    return {label: executor["container"] for label, executor in executors.items()}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


def test_the_compiled_pipeline_is_one_that_kubeflow_can_load(
    compiled: Path, config: Config
) -> None:
    loaded = load_component_from_file(str(compiled))

    assert compiled.name == "tf_pipeline.yaml"
    assert loaded.pipeline_spec.pipeline_info.name == config.name
    assert loaded.pipeline_spec.schema_version == "2.1.0"


def test_every_component_of_the_dag_is_a_task(spec: dict[str, Any]) -> None:
    components = spec["components"]
    tasks = sorted(
        task["taskInfo"]["name"]
        for dag in dags(spec)
        for task in dag["tasks"].values()
        if "dag" not in components[task["componentRef"]["name"]]
    )

    assert tasks == TASKS
    assert set(tasks) == set(STAGE_OF)


def test_every_task_refers_to_components_and_tasks_that_are_there(spec: dict[str, Any]) -> None:
    for dag in dags(spec):
        for task in dag["tasks"].values():
            assert task["componentRef"]["name"] in spec["components"]
            assert set(task.get("dependentTasks", [])) <= set(dag["tasks"])
            for artifact in task.get("inputs", {}).get("artifacts", {}).values():
                produced = artifact.get("taskOutputArtifact", {})
                assert not produced or produced["producerTask"] in dag["tasks"]


def test_the_compiled_pipeline_is_whole(compiled: Path) -> None:
    check_pipeline(compiled)


def test_every_component_has_an_executor_and_every_executor_a_component(
    spec: dict[str, Any],
) -> None:
    labels = [
        component["executorLabel"]
        for component in spec["components"].values()
        if "dag" not in component
    ]

    assert sorted(labels) == sorted(containers(spec))
    assert len(labels) == len(TASKS)


def test_every_executor_runs_the_given_image(spec: dict[str, Any]) -> None:
    assert {container["image"] for container in containers(spec).values()} == {IMAGE}


def test_the_dataset_and_the_serving_folder_are_in_the_compiled_yaml(
    spec: dict[str, Any],
) -> None:
    said = list(strings(spec))

    for folder in ("gs://bucket/data", "gs://bucket/serving"):
        assert any(folder in text for text in said)


def test_a_compiled_pipeline_names_no_path_of_this_machine(compiled: Path, config: Config) -> None:
    text = compiled.read_text()

    for folder in (PROJECT_ROOT, config.output, compiled.parent, Path.home()):
        assert str(folder) not in text
