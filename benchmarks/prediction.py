"""How far ``tandem predict`` lies from worker counts that it has not seen, on emulated hosts.

The link is slow and the gradient large, so that the network decides how long a step takes and not
the cores, which the workers of one machine have to share.
"""

import os
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.data import OutputOption, ScratchOption, scratch_folder, synthetic_data
from benchmarks.report import keep, record_of
from pipelines import tracking
from pipelines.anatomy import measure_anatomy
from pipelines.cell import Cell
from pipelines.compare import formats
from pipelines.compare.prediction_model import Basis, Point
from pipelines.config import Config, parse_config
from pipelines.errors import InputError
from pipelines.ingest import Dataset, ingest
from pipelines.predict import predict
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.study import plan
from pipelines.training_run import Listener, begin_run

SEEN, HELD_OUT = (1, 2), (3, 4)
_SEEN_STUDY, _HELD_OUT_STUDY = "seen", "held-out"


def main(
    bandwidth: Annotated[str, typer.Option(help="Of each host's link.")] = "100mbit",
    repeats: Annotated[int, typer.Option(min=2, help="Runs of each cell.")] = 3,
    steps: Annotated[int, typer.Option(min=10, help="Steps of each run.")] = 40,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """Predict held-out worker counts from smaller ones, then see how long they take."""
    if os.geteuid() != 0:
        raise InputError("emulated hosts need root, for network namespaces: run as root")
    results: list[dict[str, Any]] = []
    with scratch_folder(scratch) as folder:
        config = _config(folder, bandwidth, repeats, steps)
        dataset, _ = ingest(config)
        _measure(config, dataset, folder)
        for framework in FRAMEWORKS:
            results += _judge(config, framework)
    _print(results)
    if output is not None:
        settings = {"bandwidth": bandwidth, "repeats": repeats, "steps": steps, "seen": SEEN}
        keep(record_of("prediction") | {"settings": settings, "results": results}, output)


def _config(folder: Path, bandwidth: str, repeats: int, steps: int) -> Config:
    return parse_config(
        {
            "name": "prediction",
            "output": str(folder),
            "workload": {
                "name": "tabular",
                "tabular": {
                    "categorical": ["cat_00", "cat_01", "str_00", "str_01"],
                    "top": [1024, 512],  # 2.6 MB of gradient, and little to compute
                },
            },
            "data": synthetic_data(20_000),
            "training": {
                "batch_size_per_worker": 64,
                "steps": steps,
                "warmup_steps": steps // 4,
                "device": "cpu",
            },
            "study": {"workers": [*SEEN, *HELD_OUT], "repeats": repeats},
            # The same for every cell: hosts beyond the workers stay empty.
            "network": {"hosts": max(HELD_OUT), "bandwidth": bandwidth},
        },
        "benchmarks/prediction.py",
    )


def _measure(config: Config, dataset: Dataset, folder: Path) -> None:
    """All cells, interleaved as in a study, and the anatomies of those that may be seen."""
    console = Console(stderr=True)
    tracking.prepare_store(config)
    for cell in plan(config):
        study_id = _SEEN_STUDY if cell.workers in SEEN else _HELD_OUT_STUDY
        console.print(cell.name)
        begin_run(config, dataset, cell, "cell", study_id, folder / study_id, Listener())
    for framework in FRAMEWORKS:
        for workers in SEEN:
            cell = Cell(framework, config.strategy(framework), workers)
            console.print(f"{cell.name}, its anatomy")
            measure_anatomy(config, dataset, cell, _SEEN_STUDY, folder / _SEEN_STUDY, Listener())


def _judge(config: Config, framework: Framework) -> list[dict[str, Any]]:
    """Each worker count's prediction beside its measurement."""
    runs = [run for run in tracking.read_runs(config) if run.params.get("framework") == framework]
    prediction = predict(runs, [2, *HELD_OUT], study_id=_SEEN_STUDY)
    (forecast,) = prediction.forecasts
    measured = {
        point.workers: [
            run.metrics["step_seconds"]
            for run in runs
            if run.kind == "cell" and run.params["workers"] == str(point.workers)
        ]
        for point in forecast.points
    }
    return [
        _result(framework, point, measured[point.workers], forecast.basis)
        for point in forecast.points
    ]


def _result(
    framework: Framework, point: Point, measured: list[float], basis: Basis
) -> dict[str, Any]:
    step_seconds = median(measured)
    ends = point.step_seconds_interval95
    return {
        "framework": framework,
        "workers": point.workers,
        "held_out": point.workers in HELD_OUT,
        "predicted_step_seconds": point.step_seconds,
        "interval95": ends,
        "algorithm": point.algorithm,
        "measured_step_seconds": measured,
        "error": point.step_seconds / step_seconds - 1,
        "within_interval": ends is not None and ends[0] <= step_seconds <= ends[1],
        "basis": basis.model_dump(mode="json"),
    }


def _print(results: list[dict[str, Any]]) -> None:
    table = Table(title="Seconds of a step, predicted from 1 and 2 workers", box=SIMPLE)
    for heading in ("framework", "workers", "predicted", "95 %", "measured", "error", "within"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result["framework"],
            f"{result['workers']}{'' if result['held_out'] else ' (seen)'}",
            formats.milliseconds(result["predicted_step_seconds"]),
            formats.interval(result["interval95"], "{:.3f}"),
            formats.milliseconds(median(result["measured_step_seconds"])),
            formats.percent(result["error"]),
            formats.yes_no(result["within_interval"]),
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
