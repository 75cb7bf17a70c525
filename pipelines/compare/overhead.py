"""From runs to what running each side costs: start-up, goodput, pipelines, recovery, resources."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

from pipelines.compare.collect import CellKey, Selection
from pipelines.compare.model import Cell
from pipelines.compare.overhead_model import (
    Operation,
    Overhead,
    PipelineOverhead,
    Recovery,
    Resources,
)
from pipelines.compare.statistics import median
from pipelines.compare.told import told_cells
from pipelines.runs import (
    COMPONENT_STARTUP_TAG,
    COMPONENT_WORK_TAG,
    FAULT_TAG,
    SLOWEST_WORKER_TAG,
    RunRecord,
)
from pipelines.strategies import Framework

__all__ = ["overheads"]

_BAD, _SECONDS = "badput_", "_seconds"
_MILLION = 1e6
_BATCH = "global_batch_size"


def overheads(
    cells: Sequence[Cell], selection: Selection, ledgers: Mapping[Framework, RunRecord]
) -> dict[Framework, Overhead]:
    """Each framework's side, of the cells that the findings tell of; empty without cells.

    ``ledgers``: the newest ledger of each framework, which counts fields and lines.
    """
    return {
        framework: _overhead(
            cell, selection.cells[CellKey.of(cell)], selection, ledgers.get(framework)
        )
        for framework, cell in told_cells(cells).items()
    }


def _overhead(
    cell: Cell, runs: Sequence[RunRecord], selection: Selection, ledger: RunRecord | None
) -> Overhead:
    framework = cell.framework
    names = {name for run in runs for name in run.metrics if name.startswith(_BAD)}
    lost = {
        name.removeprefix(_BAD).removesuffix(_SECONDS): value
        for name in sorted(names)
        if (value := _middle(runs, name)) is not None
    }
    steps = _middle(runs, "goodput_seconds")
    return Overhead(
        framework=framework,
        strategy=cell.strategy,
        workers=cell.workers,
        scaling=cell.scaling,
        first_step=_first_step(runs),
        time_to_first_step_seconds=cell.time_to_first_step_seconds,
        wall_seconds=cell.wall_seconds,
        goodput_share=cell.goodput_share,
        goodput={} if steps is None else {"step": steps, **lost},
        resources=_resources(cell, runs),
        operation=_operation(runs, ledger),
        pipeline=_pipeline(selection.pipelines.get(framework), selection.reruns.get(framework)),
        recovery=_recovery(selection.recoveries.get(framework)),
        mlflow_run_ids=cell.mlflow_run_ids,
    )


def _first_step(runs: Sequence[RunRecord]) -> dict[str, float]:
    """Medians of the slowest worker's phases, the first step's told apart in two."""
    found = [phases for run in runs if (phases := _phases_of_slowest(run)) is not None]
    step = _middle(runs, "step_seconds")
    if not found:
        return {}
    names = list(dict.fromkeys(name for phases in found for name in phases))
    parts = {
        name.removesuffix(_SECONDS): value
        for name in names
        if (value := median([phases.get(name, math.nan) for phases in found])) is not None
    }
    first = parts.pop("first_step", None)
    if first is not None and step is not None:
        parts |= {"compile": max(0.0, first - step), "step": min(first, step)}
    return parts


def _phases_of_slowest(run: RunRecord) -> dict[str, float] | None:
    """The tag's content; a detail, so one that cannot be read is left out, not an error."""
    try:
        phases = json.loads(run.tags[SLOWEST_WORKER_TAG])["phases"]
        return {str(name): float(value) for name, value in phases.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _resources(cell: Cell, runs: Sequence[RunRecord]) -> Resources:
    def per(metric: str, amount: Callable[[RunRecord], float]) -> float | None:
        return median([run.metrics.get(metric, math.nan) / amount(run) for run in runs])

    return Resources(
        peak_memory_bytes=cell.peak_memory_bytes,
        network_bytes_per_step=per("network_bytes", _timed_steps),
        cpu_seconds_per_million_examples=per(
            "cpu_seconds", lambda run: _number(run, "steps") * _number(run, _BATCH) / _MILLION
        ),
        joules_per_million_examples=per(
            "energy_joules", lambda run: _timed_steps(run) * _number(run, _BATCH) / _MILLION
        ),
    )


def _timed_steps(run: RunRecord) -> float:
    return _number(run, "steps") - _number(run, "warmup_steps")


def _number(run: RunRecord, parameter: str) -> float:
    """Not a number, where another program has logged the run and left it out."""
    try:
        return float(run.params[parameter])
    except (KeyError, ValueError):
        return math.nan


def _operation(runs: Sequence[RunRecord], ledger: RunRecord | None) -> Operation:
    kept = ledger.metrics if ledger else {}
    return Operation(
        processes=_whole(_middle(runs, "processes")),
        listening_ports=_whole(_middle(runs, "listening_ports")),
        environment_variables=_whole(_middle(runs, "environment_variables")),
        config_fields=_whole(kept.get("config_fields")),
        manifest_lines=_whole(kept.get("manifest_lines")),
        ledger_run_id=ledger.run_id if ledger else None,
    )


def _pipeline(run: RunRecord | None, rerun: RunRecord | None) -> PipelineOverhead | None:
    if run is None or "pipeline_seconds" not in run.metrics:
        return None
    metrics = {name: value for name, value in run.metrics.items() if math.isfinite(value)}
    again = rerun if rerun is not None and rerun.run_id != run.run_id else None
    return PipelineOverhead(
        seconds=metrics["pipeline_seconds"],
        work_seconds=metrics.get("pipeline_work_seconds"),
        startup_seconds=metrics.get("pipeline_startup_seconds"),
        overhead_seconds=metrics.get("pipeline_overhead_seconds"),
        component_startup=run.figures_of(COMPONENT_STARTUP_TAG),
        component_work=run.figures_of(COMPONENT_WORK_TAG),
        cached_stages=round(metrics.get("cached_stages", 0)),
        cached_rerun_seconds=again.metrics.get("pipeline_seconds") if again else None,
        processes=_whole(metrics.get("pipeline_processes")),
        mlflow_run_ids=[each.run_id for each in (run, again) if each is not None],
    )


def _recovery(run: RunRecord | None) -> Recovery | None:
    if run is None or "recovery_seconds" not in run.metrics:
        return None
    return Recovery(
        fault=run.tags.get(FAULT_TAG, ""),
        notice_seconds=run.metrics.get("notice_seconds"),
        recovery_seconds=run.metrics["recovery_seconds"],
        lost_steps=round(run.metrics.get("lost_steps", 0)),
        mlflow_run_id=run.run_id,
    )


def _middle(runs: Sequence[RunRecord], metric: str) -> float | None:
    return median([run.metrics.get(metric, math.nan) for run in runs])


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(value)
