"""The study: every cell of the matrix, measured in fresh processes, one after the other."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.cell import Cell, cell_params
from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.hardware import available_cores
from pipelines.ingest.dataset import Dataset
from pipelines.launch import OnLine, launch
from pipelines.runs import RunKind
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.worker_run import RESULT_NAME

__all__ = ["plan", "run_cell", "run_study"]

OnProgress = Callable[[Cell, int, int], None]
"""Called with the cell that runs, and steps done and in all."""


def plan(config: Config) -> Iterator[Cell]:
    """The cells in the order in which they run.

    The frameworks alternate, and who goes first alternates too, so that a machine that warms up
    or slows down meanwhile does so to both alike.
    """
    for repeat in range(config.study.repeats):
        for scaling in config.study.scaling:
            for place, workers in enumerate(config.study.workers):
                # By place too, so that nobody always goes first at a given worker count.
                order = FRAMEWORKS if (repeat + place) % 2 == 0 else FRAMEWORKS[::-1]
                for framework in order:
                    yield Cell(framework, config.strategy(framework), workers, scaling, repeat)


def run_study(
    config: Config, dataset: Dataset, study_id: str, on_progress: OnProgress
) -> list[str]:
    """Measure every cell; returns the ids of their runs.

    Raises:
        WorkError: if a cell failed; its run is marked so, and what was measured stays.
    """
    tracking.prepare_store(config)
    folder = config.output / "studies" / study_id
    return [
        run_cell(config, dataset, cell, "cell", study_id, folder, on_progress)[0]
        for cell in plan(config)
    ]


def run_cell(
    config: Config,
    dataset: Dataset,
    cell: Cell,
    kind: RunKind,
    study_id: str,
    folder: Path,
    on_progress: OnProgress,
    on_line: OnLine = lambda name, line: None,
) -> tuple[str, dict[str, float]]:
    """One training run in processes of its own; returns its run's id and metrics."""
    if config.network.hosts > 1 and not config.tracking_uri.startswith("sqlite:"):
        raise InputError(
            f"tracking.uri: emulated hosts cannot reach {config.shown_tracking_uri}; "
            "use a database file, such as sqlite:///out/mlflow.db"
        )
    transformed = _transformed(config, dataset, cell.framework)
    output = folder / cell.slug
    output.mkdir(parents=True)
    resolved = config.dump(output / "config.yaml")
    params = cell_params(config, dataset.manifest, cell)
    run_id = tracking.create_run(config, cell.name, kind, study_id, params)

    def on_event(rank: int, event: dict[str, Any]) -> None:
        if rank == 0 and event["event"] == "step":
            on_progress(cell, event["step"], event["steps"])

    on_progress(cell, 0, config.training.steps)
    arguments = ["train", "--config", str(resolved), "--output", str(output)]
    arguments += ["--scaling", cell.scaling, "--repeat", str(cell.repeat), "--study-id", study_id]
    if transformed is not None:
        arguments += ["--transformed", str(transformed)]
    with tracking.ended_if_failed(config, run_id):
        seconds = launch(
            cell.framework,
            arguments,
            logs=output,
            layout=Layout.of(config, cell.framework, cell.workers),
            network=config.network,
            threads_per_worker=config.study.threads_per_worker,
            environment={tracking.RUN_ID_VARIABLE: run_id, **config.child_variables},
            on_event=on_event,
            on_line=on_line,
        )
        if not (output / RESULT_NAME).exists():
            raise WorkError(f"{cell.name} ended without a result (logs: {output})")
    tracking.log_metrics(config, run_id, {"wall_seconds": seconds})
    metrics = json.loads((output / RESULT_NAME).read_text())["metrics"]
    return run_id, {**metrics, "wall_seconds": seconds}


def _transformed(config: Config, dataset: Dataset, framework: Framework) -> Path | None:
    """Under ``reader: native``, what the framework's own transform wrote, made on first use."""
    if config.data.reader == "shared":
        return None
    name = f"{framework}-{dataset.manifest.fingerprint[:16]}"
    folder = config.output / "transformed" / name
    if not folder.exists():
        temporary = folder.with_name(f".{name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        resolved = config.dump(temporary / "config.yaml")
        arguments = ["transform", "--config", str(resolved), "--output", str(temporary)]
        launch(
            framework,
            arguments,
            logs=temporary / "logs",
            threads_per_worker=len(available_cores()),
            environment=config.child_variables,
        )
        temporary.rename(folder)
    return folder
