"""``python -m tf_pipeline STAGE --config ...``: what launchers start, locally and in pods."""

import time

STARTED = time.perf_counter()  # before any import that counts

from pathlib import Path  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from pipelines.config import load_config  # noqa: E402
from pipelines.stage import run_stage  # noqa: E402

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Config = Annotated[Path, typer.Option(help="Resolved configuration file.")]
Output = Annotated[Path, typer.Option(help="Folder for what the stage writes.")]


@app.command("train")
def train_stage(
    config: Config,
    output: Output,
    scaling: str = "weak",
    repeat: int = 0,
    study_id: str = "",
    transformed: Path | None = None,
) -> None:
    """Train and evaluate as one worker; rank, peers and threads come from the environment."""
    from pipelines.worker_run import Twin, run_worker
    from tf_pipeline.evaluate import evaluate
    from tf_pipeline.strategy import build_strategy, describe_software, gather_over_workers
    from tf_pipeline.train import train

    twin = Twin("tf", build_strategy, gather_over_workers, describe_software, train, evaluate)
    run_worker(
        twin,
        load_config(config),
        started=STARTED,
        output=output,
        scaling=scaling,
        repeat=repeat,
        study_id=study_id,
        transformed=transformed,
    )


@app.command("pipeline")
def pipeline_stage(config: Config, output: Output) -> None:
    """Run the framework's whole DAG on this machine."""
    from tf_pipeline.runners import run_local

    run_local(load_config(config), output)


@app.command("compile")
def compile_stage(
    config: Config,
    output: Output,
    image: Annotated[str, typer.Option(help="Container image of the steps.")],
    dataset: Annotated[str, typer.Option(help="Dataset's folder, as a step sees it.")],
    artifacts: Annotated[str, typer.Option(help="Root of what steps hand to each other.")],
    serving: Annotated[str, typer.Option(help="Folder for blessed models.")],
) -> None:
    """Compile the framework's DAG for Kubeflow Pipelines."""
    from pipelines.dag import DagEnvironment
    from tf_pipeline.runners import compile_kubeflow

    environment = DagEnvironment(dataset, artifacts, serving, image)
    compile_kubeflow(load_config(config), environment, output)


@app.command("transform")
def transform_stage(config: Config, output: Output) -> None:
    """Fit the transform and apply it, for training with ``data.reader: native`` outside a DAG."""
    from pipelines.ingest.dataset import Dataset
    from pipelines.workloads import get_workload
    from tf_pipeline.transform import fit_transform

    loaded = load_config(config)
    fit_transform(get_workload(loaded.workload), Dataset.open(loaded.dataset_dir), output)


def main() -> None:
    """Run a stage; an expected error ends with one line and its exit code."""
    run_stage(app)


if __name__ == "__main__":
    main()
