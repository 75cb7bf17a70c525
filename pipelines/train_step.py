"""The DAGs' training step: one worker trains in the step's own process, several in their own."""

import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines import events
from pipelines.cluster import Layout
from pipelines.cluster_config import ClusterConfig
from pipelines.config import Config, parse_config
from pipelines.hardware import available_cores
from pipelines.launch import launch
from pipelines.strategies import ALONE, Framework
from pipelines.submit.shared_step import StepFolders, shared_with_job
from pipelines.twin import Twin
from pipelines.worker_run import run_step

__all__ = ["load_step", "train_in_step"]


def load_step(framework: Framework, workers: int) -> None:
    """Import what ``train_in_step`` needs in this process, so that it is no part of its work.

    Several workers are processes of their own, whose imports are.
    """
    if workers == 1:
        Twin.load(framework)
        import_module(f"{framework}_pipeline.export")


def train_in_step(
    framework: Framework,
    settings: Mapping[str, Any],
    workers: int,
    *,
    dataset: Path,
    transformed: Path,
    transform_fn: Path,
    output: Path,
) -> None:
    """Train on the transform step's output with the configured strategy, and export.

    ``settings`` is what ``Config.for_steps`` gave. The workers share the machine's cores equally,
    or on a cluster are the pods of a training job.

    Raises:
        WorkError: if a worker failed, with its last lines.
    """
    if workers == 1:
        one = {"strategy": ALONE[framework]}
        alone = {**settings, framework: one, "study": {"workers": [1]}}
        run_step(
            Twin.load(framework),
            _parse(alone),
            dataset=dataset,
            transformed=transformed,
            transform_fn=transform_fn,
            output=output,
        )
        return
    config, cluster = _parse(settings), ClusterConfig.of_this_step()
    threads = cluster.threads_per_worker if cluster else len(available_cores()) // workers
    with (
        tempfile.TemporaryDirectory(prefix="tandem-step-") as temporary,
        shared_with_job(
            cluster,
            StepFolders(Path(temporary), transformed, transform_fn, output),
        ) as folders,
    ):
        resolved = config.dump(folders.config / "config.yaml")
        launch(
            framework,
            [
                "step",
                *("--config", str(resolved)),
                *("--output", str(folders.output)),
                *("--dataset", str(dataset)),
                *("--transformed", str(folders.transformed)),
                *("--transform-fn", str(folders.transform_fn)),
            ],
            logs=folders.config,
            layout=Layout.of(config, framework, workers),
            threads_per_worker=max(1, threads),
            environment=config.child_variables,
            on_line=lambda name, line: events.say(f"[{name}] {line}"),
        )


def _parse(settings: Mapping[str, Any]) -> Config:
    return parse_config(dict(settings), "training step")
