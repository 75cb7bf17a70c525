"""All that a submission consists of, written into a folder: pipelines, and the jobs of their steps.

``--dry-run`` keeps the folder; a real submission sends the pipelines from it. The training jobs are
created by the pipelines' steps, later and with names and ids of their own.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.cell import Cell, cell_config
from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.launch import launch
from pipelines.run_folder import CONFIG_NAME
from pipelines.strategies import Framework
from pipelines.study import plan
from pipelines.study_folder import StudyFolder
from pipelines.submit.ir_check import check_pipeline
from pipelines.submit.surroundings import read_pipeline, surround, write_pipeline
from pipelines.submit.tfx_step import ENTRY_POINT
from pipelines.submit.training_job import JobRequest, build_job, job_name
from pipelines.training_run import train_arguments

__all__ = ["JOBS_FOLDER", "PipelineName", "Written", "on_cluster", "write_submission"]

PipelineName = Literal["ingest", "torch", "tf", "study"]
JOBS_FOLDER = "training_jobs"

_STUDY_ID, _RUN_ID = "STUDY-ID", "RUN-ID"
"""Stand for what is known only when a job is created."""
_MARK = "0000"
_TRAIN_EXECUTOR = {"torch": "exec-train", "tf": "Trainer_executor"}


@dataclass(frozen=True)
class Written:
    """The files of a submission."""

    pipelines: dict[PipelineName, Path]
    jobs: list[Path]


def on_cluster(config: Config) -> Config:
    """The configuration as pods have it: all on the claim, tracked by the cluster's server."""
    cluster = config.cluster
    cpus = cluster.cpu_per_worker or str(config.study.threads_per_worker)
    return config.model_copy(
        update={
            "output": Path(cluster.mount_path) / "tandem" / config.name,
            "data": config.data.model_copy(update={"output": None}),
            "tracking": config.tracking.model_copy(update={"uri": cluster.tracking_uri}),
            "cluster": cluster.model_copy(update={"cpu_per_worker": cpus}),
        }
    )


def write_submission(
    config: Config, names: Sequence[PipelineName], folder: Path, workers: int = 1
) -> Written:
    """Compile the named pipelines into a folder, check them, and write their jobs beside them.

    ``config`` is one ``on_cluster``; ``workers`` are those of the frameworks' training steps.

    Raises:
        InputError: if something of it cannot run on a cluster so.
        WorkError: if a compiled pipeline is not whole.
    """
    _refuse_what_cannot_run(config)
    jobs = list(_jobs(config, names, workers))  # refused before anything is compiled
    pipelines: dict[PipelineName, Path] = {}
    for name in names:
        pipelines[name] = _compile(config, name, folder, workers)
        check_pipeline(pipelines[name])
    written = []
    for stem, job in jobs:
        file = folder / JOBS_FOLDER / f"{stem}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(job, sort_keys=False))
        written.append(file)
    return Written(pipelines, written)


def _refuse_what_cannot_run(config: Config) -> None:
    if config.network.hosts > 1:
        raise InputError("network.hosts: hosts are emulated on one machine, not on a cluster")
    kind = config.cluster.accelerator.kind
    if kind == "gpu" and config.training.device == "cpu":
        raise InputError("training.device: cpu would hide the GPUs of cluster.accelerator")
    if kind == "tpu" and any(name != "tpu" for name in config.strategies("tf")):
        raise InputError("tf.strategy: only tpu trains on the TPUs of cluster.accelerator")


def _compile(config: Config, name: PipelineName, folder: Path, workers: int) -> Path:
    file = folder / f"{name}_pipeline.yaml"
    training: frozenset[str] = frozenset()
    if name == "tf" or name == "torch":
        _compile_framework(config, name, folder, workers)
        if workers == 1:
            training = frozenset({_TRAIN_EXECUTOR[name]})
    else:
        from kfp import compiler

        from pipelines.submit.study_pipeline import build_ingest_pipeline, build_study_pipeline

        build = build_study_pipeline if name == "study" else build_ingest_pipeline
        compiler.Compiler().compile(build(config), str(file))
    specification, _ = read_pipeline(file)
    for executor in specification["deploymentSpec"]["executors"].values():
        command = executor["container"]["command"]
        if ENTRY_POINT in command:
            command[command.index(ENTRY_POINT)] = "pipelines.submit.tfx_step"
    platform = surround(specification, config.cluster, training)
    write_pipeline(file, specification, platform)
    return file


def _compile_framework(config: Config, framework: Framework, folder: Path, workers: int) -> None:
    """In the framework's own environment, by the stage that its package has for it."""
    own = config.output / "pipelines" / framework
    with tempfile.TemporaryDirectory(prefix="tandem-submit-") as temporary:
        resolved = config.dump(Path(temporary) / CONFIG_NAME)
        launch(
            framework,
            [
                "compile",
                *("--config", str(resolved)),
                *("--output", str(folder)),
                *("--image", config.cluster.image(framework)),
                *("--dataset", str(config.dataset_dir)),
                *("--artifacts", config.cluster.pipeline_root or str(own / "artifacts")),
                *("--serving", str(own / "serving")),
                *("--workers", str(workers)),
            ],
            logs=Path(temporary),
        )


def _jobs(
    config: Config, names: Sequence[PipelineName], workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The training jobs that the pipelines' steps will create, each with a name for its file."""
    if "study" in names:
        folder = StudyFolder.path(config, _STUDY_ID)
        for cell in plan(config):
            yield cell.slug, _cell_job(cell_config(config, cell), cell, folder / cell.slug)
    for framework in ("tf", "torch"):
        if framework in names and workers > 1:
            yield f"{framework}-pipeline-train-x{workers}", _step_job(config, framework, workers)


def _cell_job(config: Config, cell: Cell, output: Path) -> dict[str, Any]:
    request = JobRequest(
        name=job_name(cell.framework, "train", output.name, mark=_MARK),
        framework=cell.framework,
        layout=Layout.of(config, cell.framework, cell.workers),
        arguments=train_arguments(cell, output / CONFIG_NAME, output, _STUDY_ID),
        threads_per_worker=config.study.threads_per_worker,
        variables={"MLFLOW_RUN_ID": _RUN_ID, **config.child_variables},
    )
    return build_job(config.cluster, request)


def _step_job(config: Config, framework: Framework, workers: int) -> dict[str, Any]:
    shared = f"{config.cluster.mount_path}/tandem/.steps/ID"
    folders = {"--config": f"{shared}/config.yaml", "--output": f"{shared}/output"}
    folders |= {"--dataset": str(config.dataset_dir), "--transformed": f"{shared}/transformed"}
    folders |= {"--transform-fn": f"{shared}/transform_fn"}
    request = JobRequest(
        name=job_name(framework, "step", "output", mark=_MARK),
        framework=framework,
        layout=Layout.of(config, framework, workers),
        arguments=["step", *(part for pair in folders.items() for part in pair)],
        threads_per_worker=config.cluster.threads_per_worker,
        variables=config.child_variables,
    )
    return build_job(config.cluster, request)
