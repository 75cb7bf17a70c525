"""The figures of the matrix: one row per cell, its scaling, and the frameworks' difference."""

import dataclasses
import math
from collections.abc import Sequence
from statistics import median

from pipelines.cell import Cell as Place
from pipelines.compare import formats, statistics
from pipelines.compare.collect import THROUGHPUT, CellKey
from pipelines.compare.model import Cell, Difference, FittedLaw, ScalingPoint, StepSplit
from pipelines.compare.notes import few_repeats
from pipelines.compare.scaling_law import fit_law
from pipelines.metrics import METRICS, PHASES
from pipelines.runs import RunRecord
from pipelines.step_parts import step_parts
from pipelines.strategies import ASYNCHRONOUS_STRATEGIES, Framework

__all__ = ["differences_between", "fitted_laws", "scaling_points", "step_splits", "summarise"]


def summarise(key: CellKey, runs: list[RunRecord]) -> Cell:
    """The medians of one cell; every finished repeat counts, however slow."""

    def middle(metric: str) -> float | None:
        return statistics.median([run.metrics.get(metric, math.nan) for run in runs])

    repeats = [run.metrics[THROUGHPUT] for run in runs]
    middle_rate = statistics.median(repeats)
    assert middle_rate is not None, "select() keeps only runs with a finite throughput"
    phases = {phase: middle(phase) for phase in PHASES}
    return Cell(
        framework=key.framework,
        strategy=key.strategy,
        workers=key.workers,
        scaling=key.scaling,
        repeats=repeats,
        median=middle_rate,
        interval95=statistics.interval_of_median(repeats),
        phases={phase: value for phase, value in phases.items() if value is not None},
        wall_seconds=middle("wall_seconds"),
        time_to_first_step_seconds=middle("time_to_first_step_seconds"),
        goodput_share=middle("goodput_share"),
        step_seconds=middle("step_seconds"),
        data_wait_seconds=middle("data_wait_seconds"),
        cpu_seconds=middle("cpu_seconds"),
        train_loss=middle("train_loss"),
        eval_loss=middle("eval_loss"),
        eval_metrics={
            name: value for name in formats.JUDGED if (value := middle(name)) is not None
        },
        peak_memory_bytes=middle("peak_memory_bytes"),
        mlflow_run_ids=[run.run_id for run in runs],
    )


def scaling_points(cells: Sequence[Cell]) -> list[ScalingPoint]:
    """Each cell against the smallest worker count of its own framework and strategy.

    efficiency(n) = throughput(n) / (n * throughput(base)) * base, which is 1 when each worker
    trains as many examples per second as it did in the base case.
    """
    points = []
    for members in _series(cells).values():
        base = min(members, key=lambda cell: cell.workers)
        for cell in sorted(members, key=lambda cell: cell.workers):
            growth = cell.workers / base.workers
            speedup = cell.median / base.median
            ends = None
            if cell is not base:
                ends = statistics.interval_of_ratio(cell.repeats, base.repeats)
            points.append(
                ScalingPoint(
                    framework=cell.framework,
                    strategy=cell.strategy,
                    scaling=cell.scaling,
                    workers=cell.workers,
                    base_workers=base.workers,
                    speedup=speedup,
                    efficiency=speedup / growth,
                    interval95=ends and (ends[0] / growth, ends[1] / growth),
                )
            )
    return points


def step_splits(cells: Sequence[Cell], anatomies: Sequence[RunRecord]) -> list[StepSplit]:
    """Where a step's time goes, of each cell that was taken apart."""
    by_kind: dict[CellKey, list[RunRecord]] = {}
    for run in anatomies:
        place = Place.of_params(run.params)
        if place is not None:
            by_kind.setdefault(CellKey.of(place), []).append(run)
    splits = []
    for cell in cells:
        runs = by_kind.get(CellKey.of(cell), [])
        if not runs or cell.step_seconds is None:
            continue
        whole = {"step_seconds": cell.step_seconds}
        if cell.data_wait_seconds is not None:
            whole["data_wait_seconds"] = cell.data_wait_seconds
        names = [name for name in METRICS if all(name in run.metrics for run in runs)]
        anatomy = {name: median([run.metrics[name] for run in runs]) for name in names}
        parts = step_parts(whole, anatomy, runs[0].timed_steps)
        splits.append(
            StepSplit(
                framework=cell.framework,
                strategy=cell.strategy,
                workers=cell.workers,
                scaling=cell.scaling,
                step_seconds=cell.step_seconds,
                **dataclasses.asdict(parts),
                mlflow_run_ids=[run.run_id for run in runs],
            )
        )
    return splits


def fitted_laws(cells: Sequence[Cell]) -> list[FittedLaw]:
    """The Universal Scalability Law of each series that has enough worker counts."""
    laws = []
    for (scaling, framework, strategy), members in _series(cells).items():
        law = fit_law({cell.workers: cell.repeats for cell in members})
        if law is not None:
            laws.append(FittedLaw(framework=framework, strategy=strategy, scaling=scaling, law=law))
    return laws


def _series(cells: Sequence[Cell]) -> dict[tuple[str, Framework, str], list[Cell]]:
    series: dict[tuple[str, Framework, str], list[Cell]] = {}
    for cell in cells:
        series.setdefault((cell.scaling, cell.framework, cell.strategy), []).append(cell)
    return series


def differences_between(cells: Sequence[Cell]) -> list[Difference]:
    """PyTorch over TensorFlow wherever both stand in the same place of the matrix.

    Asynchronous training stands apart: it does not take the steps that the others take.
    """
    differences = []
    synchronous = [cell for cell in cells if cell.strategy not in ASYNCHRONOUS_STRATEGIES]
    for tf in (cell for cell in synchronous if cell.framework == "tf"):
        for torch in (cell for cell in synchronous if cell.framework == "torch"):
            if (tf.workers, tf.scaling) != (torch.workers, torch.scaling):
                continue
            ends = statistics.interval_of_ratio(torch.repeats, tf.repeats)
            repeats = min(len(tf.repeats), len(torch.repeats))
            differences.append(
                Difference(
                    workers=tf.workers,
                    scaling=tf.scaling,
                    tf_strategy=tf.strategy,
                    torch_strategy=torch.strategy,
                    ratio=torch.median / tf.median,
                    interval95=ends,
                    verdict=statistics.verdict(torch.repeats, tf.repeats),
                    remark=few_repeats(repeats),
                )
            )
    return differences
