"""The figures of the matrix: one row per cell, its scaling, and the frameworks' difference."""

import math
from collections.abc import Sequence

from pipelines.compare import formats, statistics
from pipelines.compare.collect import THROUGHPUT, CellKey
from pipelines.compare.model import Cell, Difference, ScalingPoint
from pipelines.compare.notes import few_repeats
from pipelines.metrics import PHASES
from pipelines.runs import RunRecord
from pipelines.strategies import ASYNCHRONOUS_STRATEGIES, Framework

__all__ = ["differences_between", "scaling_points", "summarise"]


def summarise(key: CellKey, runs: list[RunRecord]) -> Cell:
    """The medians of one cell; every finished repeat counts, however slow."""

    def middle(metric: str) -> float | None:
        return statistics.median([run.metrics.get(metric, math.nan) for run in runs])

    repeats = [run.metrics[THROUGHPUT] for run in runs]
    median = statistics.median(repeats)
    assert median is not None, "select() keeps only runs with a finite throughput"
    phases = {phase: middle(phase) for phase in PHASES}
    return Cell(
        framework=key.framework,
        strategy=key.strategy,
        workers=key.workers,
        scaling=key.scaling,
        repeats=repeats,
        median=median,
        interval95=statistics.interval_of_median(repeats),
        phases={phase: value for phase, value in phases.items() if value is not None},
        wall_seconds=middle("wall_seconds"),
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
    series: dict[tuple[str, Framework, str], list[Cell]] = {}
    for cell in cells:
        series.setdefault((cell.scaling, cell.framework, cell.strategy), []).append(cell)
    for members in series.values():
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
