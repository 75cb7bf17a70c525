"""How long a comparison of ten thousand runs takes, through the real tracking store."""

import time
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Any

import numpy as np
import typer
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from rich.console import Console
from rich.progress import track

from benchmarks.data import OutputOption, ScratchOption, scratch_folder
from benchmarks.report import keep, record_of
from pipelines import tracking
from pipelines.cell import Cell, cell_config, cell_params
from pipelines.cli import actions
from pipelines.cli.narrator import Narrator
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import ingest
from pipelines.ingest.dataset import Dataset
from pipelines.metrics import METRICS
from pipelines.runs import (
    KIND_TAG,
    PARITY_FIELDS,
    PARITY_PASSED,
    PARITY_SIDE_FIELDS,
    STUDY_TAG,
)
from pipelines.strategies import FRAMEWORKS

_MATRIX = [
    "study.workers=[1,2,4,8,16]",
    "study.scaling=[weak,strong]",
    "study.strategies.torch=[ddp,fsdp]",
    "study.strategies.tf=[multi_worker_mirrored,mirrored]",
    "training.batch_size_per_worker=64",
]
_GROUPS = ("learning", "speed", "phase", "goodput", "resource", "operation")
_SYSTEM = (
    *("cpu_utilization_percentage", "disk_available_megabytes", "disk_usage_megabytes"),
    *("disk_usage_percentage", "network_receive_megabytes", "network_transmit_megabytes"),
    *("system_memory_usage_megabytes", "system_memory_usage_percentage"),
)
_LOGGED = (
    *(name for name, metric in METRICS.items() if metric.group in _GROUPS),
    *(f"system/rank_0/{name}" for name in _SYSTEM),
)
"""As many as a training run on one worker logs."""
_SOFTWARE = {"framework_version": "1.0", "software_build": "cpu", "python_version": "3.11"}


def main(
    runs: Annotated[int, typer.Option(min=40, help="Runs of the study.")] = 10_000,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """Write a study of so many runs to a store, then compare it as ``tandem compare`` does."""
    with scratch_folder(scratch) as folder:
        quickstart = PROJECT_ROOT / "configs" / "quickstart.yaml"
        config = load_config(quickstart, [*_MATRIX, f"output={folder / 'out'}"])
        dataset, _ = ingest(config)
        cells = [*_cells(config, runs)]
        _write(config, dataset, cells)
        began = time.perf_counter()
        report = actions.compare(config, Narrator())
        seconds = time.perf_counter() - began
    compared = sum(len(cell.repeats) for cell in report.cells)
    Console().print(f"{compared:,} runs in {len(report.cells)} cells compared in {seconds:.1f} s")
    if output is not None:
        measured = {"runs": compared, "cells": len(report.cells), "seconds": seconds}
        keep(record_of("compare") | measured, output)


def _cells(config: Config, runs: int) -> Iterator[Cell]:
    """As many as asked for, kind by kind within a repeat."""
    study = config.study
    kinds = [
        (framework, strategy, workers, scaling)
        for framework in FRAMEWORKS
        for strategy, workers, scaling in product(
            config.strategies(framework), study.workers, study.scaling
        )
    ]
    for number in range(runs):
        yield Cell(*kinds[number % len(kinds)], repeat=number // len(kinds))


def _write(config: Config, dataset: Dataset, cells: list[Cell]) -> None:
    study_id, random = tracking.new_study_id(), np.random.default_rng(0)
    params = {cell: {**_params(config, dataset, cell), **_SOFTWARE} for cell in cells}
    for tf, torch in product(config.strategies("tf"), config.strategies("torch")):
        _write_verdict(config, study_id, tf, torch, params[cells[0]])
    client, experiment_id = MlflowClient(config.tracking_uri), tracking.experiment_id(config)
    tags = {KIND_TAG: "cell", STUDY_TAG: study_id}
    for cell in track(cells, "writing runs", console=Console(stderr=True)):
        # With as few requests as can be: ten thousand runs are minutes of waiting all the same.
        run_id = client.create_run(experiment_id, tags=tags, run_name=cell.name).info.run_id
        rate = 1000.0 * cell.workers**0.9 * random.lognormal(sigma=0.05)
        logged = {name: float(random.lognormal()) for name in _LOGGED}
        now = int(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[
                Metric(name, value, now, 0)
                for name, value in (logged | {"examples_per_second": rate}).items()
            ],
            params=[Param(name, str(value)) for name, value in params[cell].items()],
        )
        client.set_terminated(run_id)


def _params(config: Config, dataset: Dataset, cell: Cell) -> dict[str, Any]:
    return cell_params(cell_config(config, cell), dataset.manifest, cell)


def _write_verdict(
    config: Config, study_id: str, tf: str, torch: str, params: dict[str, Any]
) -> None:
    sides = {
        f"{framework}_{field}": {**params, "strategy": strategy}[field]
        for framework, strategy in (("tf", tf), ("torch", torch))
        for field in PARITY_SIDE_FIELDS
    }
    common = {field: params[field] for field in PARITY_FIELDS}
    told = {"parity_steps": 1, "parity_workers": "1"}
    run_id = tracking.create_run(config, "parity", "parity", study_id, common | sides | told)
    tracking.log_metrics(config, run_id, {PARITY_PASSED: 1.0})
    tracking.finish_run(config, run_id, "FINISHED")


if __name__ == "__main__":
    typer.run(main)
