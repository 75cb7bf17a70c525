"""The DAG, the Kubeflow way: six components, typed artifacts, and a cache keyed by all inputs.

A component's body runs in a process, or pod, of its own: all that it needs is imported inside.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kfp import dsl

from pipelines.config import Config
from pipelines.dag import DagEnvironment, Stage

__all__ = ["STAGE_OF", "build_pipeline"]

STAGE_OF: Mapping[str, Stage] = {
    "validate": "validate",
    "transform": "transform",
    "train": "train",
    "evaluate": "evaluate",
    "bless": "evaluate",
    "push": "push",
}
"""Component -> the stage that both frameworks share."""


class Outputs(NamedTuple):
    """What the whole DAG returns."""

    metrics: dsl.Metrics
    blessing: str


def build_pipeline(config: Config, environment: DagEnvironment) -> dsl.base_component.BaseComponent:
    """The DAG from an ingested dataset to a published model, blessed or not published."""
    settings = config.for_steps()
    component = dsl.component(base_image=environment.image, install_kfp_package=False)

    def cached(task: dsl.PipelineTask) -> dsl.PipelineTask:
        # Left to itself the cache is keyed by paths too, which differ from run to run.
        if environment.cache_key:
            task.set_caching_options(True, cache_key=f"{task.name}-{environment.cache_key}")
        return task

    @dsl.pipeline(name=config.name)
    def dag() -> Outputs:
        validated = cached(component(validate)(dataset_dir=environment.dataset))
        transformed = cached(
            component(transform)(config=settings, dataset_dir=environment.dataset)
        ).after(validated)
        trained = cached(
            component(train)(
                config=settings,
                dataset_dir=environment.dataset,
                workers=environment.workers,
                transformed=transformed.outputs["transformed"],
            )
        )
        evaluated = cached(
            component(evaluate)(
                config=settings,
                dataset_dir=environment.dataset,
                model=trained.outputs["model"],
            )
        )
        # A component of its own, with a single output: that is the condition kfp's local runner
        # gets right.
        blessing = cached(component(bless)(config=settings, metrics=evaluated.outputs["metrics"]))
        with dsl.If(blessing.output == "blessed"):
            cached(
                component(push)(
                    model=trained.outputs["model"],
                    serving=environment.serving,
                    cache_key=environment.cache_key,
                )
            )
        return Outputs(metrics=evaluated.outputs["metrics"], blessing=blessing.output)

    return dag


def validate(dataset_dir: str, anomalies: dsl.Output[dsl.Artifact]) -> None:
    """Fail on rows that disagree with the manifest."""
    from pathlib import Path

    from pipelines.component_work import component_work
    from pipelines.errors import InputError
    from pipelines.ingest.dataset import Dataset
    from pipelines.ingest.validate import find_anomalies
    from pipelines.stage import step_body

    with step_body(), component_work("validate"):
        found = find_anomalies(Dataset.open(Path(dataset_dir)))
        Path(anomalies.path).write_text("\n".join(found))
        if found:
            raise InputError(f"dataset has anomalies: {'; '.join(found)}")


def transform(config: dict, dataset_dir: str, transformed: dsl.Output[dsl.Dataset]) -> None:
    """Fit the transform and apply it to every split."""
    from pathlib import Path

    from pipelines.component_work import component_work
    from pipelines.config import parse_config
    from pipelines.ingest.dataset import Dataset
    from pipelines.stage import step_body
    from pipelines.workloads import get_workload
    from torch_pipeline.transform import fit_transform

    with step_body(), component_work("transform"):
        dataset = Dataset.open(Path(dataset_dir))
        workload = get_workload(parse_config(config, "transform"), dataset.manifest)
        fit_transform(workload, dataset, Path(transformed.path))


def train(
    config: dict,
    dataset_dir: str,
    workers: int,
    transformed: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
) -> None:
    """Train on the transformed examples, on several workers where asked to, then export."""
    from pathlib import Path

    from pipelines.component_work import component_work
    from pipelines.stage import step_body
    from pipelines.train_step import load_step, train_in_step

    load_step("torch", workers)
    with step_body(), component_work("train"):
        folder = Path(transformed.path)
        train_in_step(
            "torch",
            config,
            workers,
            dataset=Path(dataset_dir),
            transformed=folder,
            transform_fn=folder / "transform_fn",
            output=Path(model.path),
        )


def evaluate(
    config: dict,
    dataset_dir: str,
    model: dsl.Input[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Judge the exported model on the raw eval split."""
    import json
    from pathlib import Path

    from pipelines.component_work import component_work
    from pipelines.config import parse_config
    from pipelines.ingest.dataset import Dataset
    from pipelines.stage import step_body
    from pipelines.workloads import get_workload
    from torch_pipeline.evaluate import evaluate_exported

    with step_body(), component_work("evaluate"):
        dataset = Dataset.open(Path(dataset_dir))
        workload = get_workload(parse_config(config, "evaluate"), dataset.manifest)
        found = evaluate_exported(workload, dataset, Path(model.path))
        # Metrics travel as metadata; the file is there because the cache takes an artifact without
        # one for a lost one.
        Path(metrics.path).write_text(json.dumps(found))
        for name, value in found.items():
            metrics.log_metric(name, value)


def bless(config: dict, metrics: dsl.Input[dsl.Metrics]) -> str:
    """Hold the metrics to the workload's thresholds."""
    from pipelines.component_work import component_work
    from pipelines.config import parse_config
    from pipelines.stage import step_body
    from pipelines.workloads import get_thresholds, meets_thresholds

    with step_body(), component_work("bless"):
        thresholds = get_thresholds(parse_config(config, "bless").workload)
        return "blessed" if meets_thresholds(metrics.metadata, thresholds) else "not blessed"


def push(model: dsl.Input[dsl.Model], serving: str, cache_key: str) -> None:
    """Publish the model under a version of its own, with a note of what made it."""
    import json
    import shutil
    import time
    from pathlib import Path

    from pipelines.component_work import component_work
    from pipelines.stage import step_body

    with step_body(), component_work("push"):
        published = Path(serving) / str(int(time.time()))
        temporary = published.with_name(f".{published.name}.writing")
        shutil.copytree(model.path, temporary)
        (temporary / "provenance.json").write_text(json.dumps({"cache_key": cache_key}))
        temporary.rename(published)
