"""``python -m <framework>_pipeline STAGE``: the same stages for both frameworks.

The twins' files and functions have fixed names. A stage imports only those that it runs: a
training worker need not pay for the DAG's imports.
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipelines.config import load_config
from pipelines.preemption import Preemption, end_with_launcher
from pipelines.slurm import slurm_variables
from pipelines.stage import run_stage
from pipelines.strategies import Framework

__all__ = ["run_entry"]

Config = Annotated[Path, typer.Option(help="Resolved configuration file.")]
Output = Annotated[Path, typer.Option(help="Folder for what the stage writes.")]


def run_entry(framework: Framework, started: float) -> None:
    """Run the stage that the command line names.

    ``started`` is ``time.perf_counter()`` at the program's first line. An expected error ends the
    program with one line and its exit code.
    """
    end_with_launcher()
    run_stage(_build_app(framework, started))


def _build_app(framework: Framework, started: float) -> typer.Typer:
    app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

    def twin(file: str, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module(f"{framework}_pipeline.{file}"), name)
        return function

    @app.command()
    def train(
        config: Config,
        output: Output,
        scaling: str = "weak",
        repeat: int = 0,
        study_id: str = "",
        replicas: Annotated[int, typer.Option(min=1, help="Devices of this process.")] = 1,
        transformed: Path | None = None,
        probe: Path | None = None,
        anatomy: Literal["alone", "together"] | None = None,
    ) -> None:
        """Train and evaluate as one worker; rank, peers and threads come from the environment."""
        preemption = Preemption()
        if probe is None and anatomy is None:
            preemption.watch()
        loaded = load_config(config)  # before the framework's import, which takes seconds
        os.environ.update(slurm_variables(framework, os.environ))
        from pipelines.parity.probe import Probe
        from pipelines.twin import Twin
        from pipelines.worker_run import run_probe, run_worker

        functions = Twin.load(framework)
        if probe is not None:
            run_probe(functions, loaded, Probe.load(probe), output, replicas)
            return
        if anatomy is not None:
            from pipelines.anatomy_run import run_alone, run_together

            if anatomy == "together":
                run_together(functions, loaded, output)
                return
            run_alone(
                functions,
                loaded,
                output=output,
                scaling=scaling,
                repeat=repeat,
                study_id=study_id,
                transformed=transformed,
            )
            return
        run_worker(
            functions,
            loaded,
            started=started,
            preemption=preemption,
            output=output,
            scaling=scaling,
            repeat=repeat,
            study_id=study_id,
            replicas=replicas,
            transformed=transformed,
        )

    @app.command()
    def step(
        config: Config,
        output: Output,
        dataset: Annotated[Path, typer.Option(help="Dataset's folder.")],
        transformed: Annotated[Path, typer.Option(help="Folder of the transformed examples.")],
        transform_fn: Annotated[Path, typer.Option(help="Folder of the fitted transform.")],
        replicas: Annotated[int, typer.Option(min=1, help="Devices of this process.")] = 1,
    ) -> None:
        """Train as one worker of a DAG's training step, and export."""
        loaded = load_config(config)
        os.environ.update(slurm_variables(framework, os.environ))
        from pipelines.twin import Twin
        from pipelines.worker_run import run_step

        run_step(
            Twin.load(framework),
            loaded,
            dataset=dataset,
            transformed=transformed,
            transform_fn=transform_fn,
            output=output,
            replicas=replicas,
        )

    @app.command()
    def transform(config: Config, output: Output) -> None:
        """Fit the transform and apply it, for training with ``reader: native`` outside a DAG."""
        from pipelines.ingest.dataset import Dataset
        from pipelines.workloads import get_workload

        loaded = load_config(config)
        dataset = Dataset.open(loaded.dataset_dir)
        workload = get_workload(loaded, dataset.manifest)
        twin("transform", "fit_transform")(workload, dataset, output)

    @app.command()
    def pipeline(config: Config, output: Output, workers: int = 1) -> None:
        """Run the framework's whole DAG on this machine."""
        loaded = load_config(config)
        twin("runners", "run_local")(loaded, output, workers)

    @app.command()
    def compile(
        config: Config,
        output: Output,
        image: Annotated[str, typer.Option(help="Container image of the steps.")],
        dataset: Annotated[str, typer.Option(help="Dataset's folder, as a step sees it.")],
        artifacts: Annotated[str, typer.Option(help="Root of what steps hand to each other.")],
        serving: Annotated[str, typer.Option(help="Folder for blessed models.")],
        workers: Annotated[int, typer.Option(min=1, help="Of the training step.")] = 1,
    ) -> None:
        """Compile the framework's DAG for Kubeflow Pipelines."""
        from pipelines.dag import DagEnvironment

        loaded = load_config(config)
        environment = DagEnvironment(dataset, artifacts, serving, image, workers)
        twin("runners", "compile_kubeflow")(loaded, environment, output)

    return app
