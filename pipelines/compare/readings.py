"""What the scorecard's indicators read: both frameworks' values, and what can be said of them.

Repeats are tested as throughput is. What is counted in code or packages is exact: the smaller, or
larger, is the better side, and only the ratio is told. What was measured once, or is left to
chance, calls no side.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pipelines.compare import statistics
from pipelines.compare.model import Cell, Report
from pipelines.compare.overhead_model import Overhead, PipelineOverhead, Recovery
from pipelines.compare.scorecard import Basis, Better, Indicator, Reading
from pipelines.runs import RunRecord
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, STRATEGIES, Framework

__all__ = ["Figures", "mean_startup"]

Prefer = Literal["more", "less"]
_NOTHING = Reading(value=None, mlflow_run_ids=[])


class Figures:
    """Takes both frameworks' readings from a report, by where they stand in it."""

    def __init__(self, report: Report, records: Sequence[RunRecord]) -> None:
        self._report = report
        self._runs = {run.run_id: run for run in records}

    def repeated(self, name: str, metric: str, prefer: Prefer) -> Indicator:
        """A metric of the told cells' runs: medians, and the repeats' verdict."""
        values = {
            framework: [
                self._runs[run_id].metrics[metric]
                for run_id in told.mlflow_run_ids
                if run_id in self._runs and metric in self._runs[run_id].metrics
            ]
            for framework, told in self._report.overhead.items()
        }
        readings = {
            framework: Reading(
                value=statistics.median(values[framework]), mlflow_run_ids=told.mlflow_run_ids
            )
            for framework, told in self._report.overhead.items()
        }
        unit = "share" if metric.endswith("_share") else "s"
        better = _tested(values.get("torch", []), values.get("tf", []), prefer)
        return _indicator(name, unit, prefer, "repeats", readings, better)

    def throughput(self) -> Indicator:
        """The report's own verdict."""
        told = self._told_cells()
        readings = {
            framework: Reading(value=cell.median, mlflow_run_ids=cell.mlflow_run_ids)
            for framework, cell in told.items()
        }
        strategies = {framework: cell.strategy for framework, cell in told.items()}
        better: Better = "not comparable"
        for each in self._report.differences:
            pair = {"tf": each.tf_strategy, "torch": each.torch_strategy}
            place = (each.workers, each.scaling)
            if pair == strategies and place == (told["tf"].workers, told["tf"].scaling):
                better = _side_of(each.verdict)
        return _indicator(
            f"examples/s{self._at_workers()}", "1/s", "more", "repeats", readings, better
        )

    def efficiency(self) -> Indicator:
        """Each repeat against one of the base case's, so that repeats can be tested."""
        told = self._told_cells()
        readings, samples = {}, {}
        for framework, cell in told.items():
            series = [
                other
                for other in self._report.cells
                if (other.framework, other.strategy, other.scaling)
                == (framework, cell.strategy, cell.scaling)
            ]
            base = min(series, key=lambda other: other.workers)
            if base.workers == cell.workers:
                continue
            growth = cell.workers / base.workers
            samples[framework] = [
                rate / before / growth
                for rate, before in zip(cell.repeats, base.repeats, strict=False)
            ]
            readings[framework] = Reading(
                value=cell.median / base.median / growth,
                mlflow_run_ids=[*base.mlflow_run_ids, *cell.mlflow_run_ids],
            )
        better = _tested(samples.get("torch", []), samples.get("tf", []), "more")
        name = f"scaling efficiency{self._at_workers()}"
        return _indicator(name, "share", "more", "repeats", readings, better)

    def spread(self) -> Indicator:
        """Three repeats' range says little of the next three's, so no side is called."""
        readings = {
            framework: Reading(
                value=(max(cell.repeats) - min(cell.repeats)) / cell.median
                if len(cell.repeats) > 1
                else None,
                mlflow_run_ids=cell.mlflow_run_ids,
            )
            for framework, cell in self._told_cells().items()
        }
        return _indicator("range of the repeats' examples/s", "share", "less", "once", readings)

    def failures(self) -> Indicator:
        """Runs of the study that failed, whether or not they were run again."""
        readings = {}
        for framework in {cell.framework for cell in self._report.cells}:
            failed = [
                each.run_id
                for each in self._report.failed
                if each.status == "FAILED"
                and each.run_id in self._runs
                and self._runs[each.run_id].params.get("framework") == framework
            ]
            finished = [
                run_id
                for cell in self._report.cells
                if cell.framework == framework
                for run_id in cell.mlflow_run_ids
            ]
            readings[framework] = Reading(value=len(failed), mlflow_run_ids=[*failed, *finished])
        return _indicator("runs that failed", "count", "less", "once", readings)

    def blessed(self) -> Indicator:
        """Whether the exported model met every threshold, and was published."""
        readings = {
            framework: Reading(
                value=None if run.blessed is None else float(run.blessed),
                mlflow_run_ids=[run.mlflow_run_id],
            )
            for framework, run in self._report.pipelines.items()
        }
        return _indicator("exported model met its thresholds", "0 or 1", "more", "once", readings)

    def dag(
        self, name: str, unit: str, value: Callable[[PipelineOverhead], float | None]
    ) -> Indicator:
        """Something of the one run of each framework's DAG."""
        readings = {
            framework: Reading(
                value=value(told.pipeline), mlflow_run_ids=told.pipeline.mlflow_run_ids
            )
            for framework, told in self._report.overhead.items()
            if told.pipeline is not None
        }
        return _indicator(name, unit, "less", "once", readings)

    def recovery(
        self, name: str, unit: str, value: Callable[[Recovery], float | None]
    ) -> Indicator:
        """Something of one run with a fault; not comparable if the faults differ."""
        told = {
            framework: each.recovery
            for framework, each in self._report.overhead.items()
            if each.recovery is not None
        }
        readings = {
            framework: Reading(value=value(each), mlflow_run_ids=[each.mlflow_run_id])
            for framework, each in told.items()
        }
        if len({each.fault for each in told.values()}) > 1:
            return _indicator(
                name, unit, "less", "once", readings, "not comparable", "not the same fault"
            )
        return _indicator(name, unit, "less", "once", readings)

    def operation(self, name: str, unit: str, field: str) -> Indicator:
        """Something that an operator has to know of, counted."""
        readings = {
            framework: Reading(
                value=getattr(told.operation, field), mlflow_run_ids=told.mlflow_run_ids
            )
            for framework, told in self._report.overhead.items()
        }
        return _indicator(name, unit, "less", "count", readings)

    def ledger(
        self,
        name: str,
        unit: str,
        row: str,
        prefer: Prefer = "less",
        basis: Basis = "count",
    ) -> Indicator:
        """A row of the ledger, if it has it and it was checked."""
        readings = {
            framework: Reading(value=getattr(kept, row), mlflow_run_ids=[kept.mlflow_run_id])
            for framework, kept in self._report.maintenance.items()
        }
        return _indicator(name, unit, prefer, basis, readings)

    def strategies(self) -> Indicator:
        """How many this project took up, which is its choice and speaks for no framework."""
        readings = {
            framework: Reading(value=len(names), mlflow_run_ids=[])
            for framework, names in STRATEGIES.items()
        }
        return _indicator(
            "strategies offered here",
            "count",
            "more",
            "count",
            readings,
            "not comparable",
            "this project's choice",
        )

    def _told_cells(self) -> dict[Framework, Cell]:
        return {
            framework: cell
            for framework, told in self._report.overhead.items()
            for cell in self._report.cells
            if _place(cell) == _place(told)
        }

    def _at_workers(self) -> str:
        counts = {told.workers for told in self._report.overhead.values()}
        return f" at {max(counts)} workers" if counts else ""


def _place(cell: Cell | Overhead) -> tuple[str, str, int, str]:
    return cell.framework, cell.strategy, cell.workers, cell.scaling


def mean_startup(pipeline: PipelineOverhead) -> float | None:
    """Over the components."""
    startup = pipeline.component_startup
    return sum(startup.values()) / len(startup) if startup else None


def _indicator(
    name: str,
    unit: str,
    prefer: Prefer,
    basis: Basis,
    readings: Mapping[Framework, Reading],
    called: Better | None = None,
    remark: str = "no verdict",
) -> Indicator:
    """``called`` is what was found of it elsewhere, ``remark`` why that is nothing."""
    tf, torch = (readings.get(framework, _NOTHING) for framework in FRAMEWORKS)
    ratio = None
    if tf.value and torch.value is not None:
        ratio = torch.value / tf.value
    better, why = called, remark
    if tf.value is None or torch.value is None:
        better, why = _one_sided(tf.value, torch.value)
    elif better is None:
        better, why = _compared(tf.value, torch.value, prefer, basis)
    return Indicator(
        name=name,
        unit=unit,
        prefer=prefer,
        tf=tf,
        torch=torch,
        ratio=ratio,
        basis=basis,
        better=better,
        remark=why if better == "not comparable" else "",
    )


def _one_sided(tf: float | None, torch: float | None) -> tuple[Better, str]:
    if tf is None and torch is None:
        return "not measured", ""
    return "not comparable", f"{FRAMEWORK_TITLES['torch' if tf is None else 'tf']} only"


def _compared(tf: float, torch: float, prefer: Prefer, basis: Basis) -> tuple[Better, str]:
    if tf == torch:
        return "no difference", ""
    if basis == "once":
        return "not comparable", "measured once"
    return ("torch" if (torch > tf) == (prefer == "more") else "tf"), ""


def _tested(torch: Sequence[float], tf: Sequence[float], prefer: Prefer) -> Better:
    """What the repeats can tell, of values of which less, or more, is better."""
    if not torch or not tf or not all(map(math.isfinite, [*torch, *tf])) or min(*torch, *tf) <= 0:
        return "not comparable"
    if prefer == "less":
        torch, tf = [1 / value for value in torch], [1 / value for value in tf]
    return _side_of(statistics.verdict(torch, tf))


def _side_of(verdict: str) -> Better:
    sides: dict[str, Better] = {"torch faster": "torch", "tf faster": "tf"}
    return sides.get(verdict, "no difference")
