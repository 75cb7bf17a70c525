"""What training costs on each side, in money: measured seconds times a file of prices.

docs/cost.md has the formulas. A run is evaluated once, at its end, so what a converged model costs
is an upper bound: the threshold may have been met before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from pipelines.compare.machine_price import HourPrice, price_of_machine, price_of_run
from pipelines.compare.maintenance import Maintenance
from pipelines.compare.maintenance_hours import MaintenanceHours, hours_of
from pipelines.compare.overhead_model import Overhead
from pipelines.compare.part import Part
from pipelines.hardware import Machine
from pipelines.prices import EngineerPrices, Prices
from pipelines.strategies import Framework
from pipelines.workloads import meets_thresholds

__all__ = ["Breakdown", "Cost", "Figure", "cost_of"]

_HOUR = 3600
_MILLION = 1_000_000


class Figure(Part):
    """An amount of money, and what it was computed from."""

    amount: float | None
    """In the prices' currency; null: not known."""
    reason: str = ""
    """Why it is not known."""
    inputs: dict[str, float]
    """What it was computed from, units in the names."""
    mlflow_run_ids: list[str]
    """The runs that these were measured in."""


class Breakdown(Part):
    """What one run, a million examples or one model costs, and of what that consists."""

    training: Figure
    """The wall clock of training: ``compute`` and ``lost_goodput``."""
    compute: Figure
    """Of it, the steps that count."""
    lost_goodput: Figure
    """Of it, all other seconds."""
    pipeline_overhead: Figure | None
    """The DAG's seconds beyond its components' work; null: no part of this."""
    maintenance: Figure | None
    """An estimate, of an engineer's time; null: no part of this."""
    total: Figure
    """``training``, and what else is part of this."""


class Cost(Part):
    """One framework's side."""

    framework: Framework
    strategy: str
    workers: int
    scaling: str
    as_of: date
    """The prices' date."""
    currency: str
    example: bool
    """Whether the prices are made up."""
    source: str
    """Where the prices come from, as their file says."""
    price_per_hour: float | None
    """Of what a training run pays for; null: no price for this machine."""
    per_run: Breakdown
    per_million_examples: Breakdown
    per_model: Breakdown
    """A model that meets the workload's thresholds."""
    thresholds: dict[str, float]
    """Metric -> what a model must reach; empty: not known."""
    runs: int
    """That were looked at."""
    runs_that_met: int | None
    """Those of them whose evaluation met every threshold; null: not known."""
    maintenance: MaintenanceHours | None
    """What the estimate consists of; null: no ledger was tracked."""


@dataclass(frozen=True)
class _Factor:
    """How many runs a thing takes."""

    runs: float | None
    inputs: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def cost_of(
    overhead: Overhead,
    maintenance: Maintenance | None,
    evaluations: Sequence[Mapping[str, float]],
    thresholds: Mapping[str, float] | None,
    examples_per_run: int | None,
    machine: Machine,
    threads_per_worker: int | None,
    prices: Prices,
) -> Cost:
    """One framework's costs.

    Args:
        overhead: what was measured of its cell and of its DAG.
        maintenance: its side of the ledger.
        evaluations: the metrics of the cell's runs.
        thresholds: metric -> what a model must reach; None: not known for this study.
        examples_per_run: that a run trains on, warm-up included.
        machine: what the runs ran on.
        threads_per_worker: compute threads.
        prices: of machines and engineers.
    """
    hour = price_of_run(machine, prices.compute, overhead.workers, threads_per_worker)
    whole = price_of_machine(machine, prices.compute)
    met = _met(evaluations, thresholds)
    hours = None if maintenance is None else hours_of(maintenance, prices.engineer.hours_per_year)
    return Cost(
        framework=overhead.framework,
        strategy=overhead.strategy,
        workers=overhead.workers,
        scaling=overhead.scaling,
        as_of=prices.as_of,
        currency=prices.currency,
        example=prices.example,
        source=prices.source,
        price_per_hour=hour.amount,
        per_run=_training(overhead, hour, _Factor(1)),
        per_million_examples=_training(overhead, hour, _per_million(examples_per_run)),
        per_model=_with_upkeep(
            _training(overhead, hour, _per_model(met, len(evaluations), thresholds)),
            _pipeline_overhead(overhead, whole),
            _maintenance(hours, prices.engineer),
        ),
        thresholds=dict(thresholds or {}),
        runs=len(evaluations),
        runs_that_met=met,
        maintenance=hours,
    )


def _met(
    evaluations: Sequence[Mapping[str, float]], thresholds: Mapping[str, float] | None
) -> int | None:
    if (
        not thresholds
        or not evaluations
        or any(name not in each for each in evaluations for name in thresholds)
    ):
        return None
    return sum(meets_thresholds(each, thresholds) for each in evaluations)


def _per_million(examples_per_run: int | None) -> _Factor:
    if not examples_per_run:
        return _Factor(None, reason="how many examples a run trains on is not known")
    return _Factor(_MILLION / examples_per_run, {"examples_per_run": examples_per_run})


def _per_model(met: int | None, runs: int, thresholds: Mapping[str, float] | None) -> _Factor:
    """Runs that did not meet the thresholds are paid for too."""
    if met is None:
        return _Factor(None, reason="whether the runs met the workload's thresholds is not known")
    inputs = {"runs": float(runs), "runs_that_met": float(met)}
    if met == 0:
        bounds = ", ".join(f"{name} {bound:g}" for name, bound in (thresholds or {}).items())
        return _Factor(None, inputs, f"none of {runs} runs met {bounds}")
    return _Factor(runs / met, inputs)


def _training(overhead: Overhead, hour: HourPrice, factor: _Factor) -> Breakdown:
    def figure(name: str, seconds: float | None) -> Figure:
        inputs = {**({} if seconds is None else {name: seconds}), **factor.inputs}
        if hour.amount is not None:
            inputs["price_per_hour"] = hour.amount
        reason = hour.reason or factor.reason or ("" if seconds is not None else "not measured")
        amount = None
        if seconds is not None and hour.amount is not None and factor.runs is not None:
            amount = seconds / _HOUR * hour.amount * factor.runs
        return Figure(
            amount=amount, reason=reason, inputs=inputs, mlflow_run_ids=overhead.mlflow_run_ids
        )

    wall, step = overhead.wall_seconds, overhead.goodput.get("step")
    training = figure("wall_seconds", wall)
    return Breakdown(
        training=training,
        compute=figure("goodput_seconds", step),
        lost_goodput=figure("lost_seconds", None if step is None or wall is None else wall - step),
        pipeline_overhead=None,
        maintenance=None,
        total=training,
    )


def _with_upkeep(training: Breakdown, pipeline: Figure, maintenance: Figure) -> Breakdown:
    """A model's costs are all of these, or not known."""
    parts = {
        "training": training.training,
        "pipeline_overhead": pipeline,
        "maintenance": maintenance,
    }
    known = {name: part.amount for name, part in parts.items() if part.amount is not None}
    missing = [
        f"{name.replace('_', ' ')}: {part.reason}"
        for name, part in parts.items()
        if part.amount is None
    ]
    run_ids = [run_id for part in parts.values() for run_id in part.mlflow_run_ids]
    total = Figure(
        amount=None if missing else sum(known.values()),
        reason="; ".join(missing),
        inputs=known,
        mlflow_run_ids=list(dict.fromkeys(run_ids)),
    )
    added = {"pipeline_overhead": pipeline, "maintenance": maintenance, "total": total}
    return training.model_copy(update=added)


def _pipeline_overhead(overhead: Overhead, hour: HourPrice) -> Figure:
    """Once per model; a DAG is bound to no cores, so it pays for the whole machine."""
    pipeline = overhead.pipeline
    if pipeline is None:
        return _unknown("not measured")
    if pipeline.overhead_seconds is None:
        return _unknown("not measured", pipeline.mlflow_run_ids)
    seconds = pipeline.overhead_seconds
    inputs = {"pipeline_overhead_seconds": seconds}
    if hour.amount is not None:
        inputs["machine_price_per_hour"] = hour.amount
    return Figure(
        amount=None if hour.amount is None else seconds / _HOUR * hour.amount,
        reason=hour.reason,
        inputs=inputs,
        mlflow_run_ids=pipeline.mlflow_run_ids,
    )


def _maintenance(hours: MaintenanceHours | None, engineer: EngineerPrices) -> Figure:
    if hours is None:
        return _unknown("no ledger is tracked")
    if hours.hours_per_year is None:
        return _unknown("the ledger has no rows", [hours.mlflow_run_id])
    return Figure(
        amount=hours.hours_per_year * engineer.hour / engineer.models_per_year,
        inputs={
            "hours_per_year": hours.hours_per_year,
            "engineer_hour": engineer.hour,
            "models_per_year": engineer.models_per_year,
        },
        mlflow_run_ids=[hours.mlflow_run_id],
    )


def _unknown(reason: str, run_ids: Sequence[str] = ()) -> Figure:
    return Figure(amount=None, reason=reason, inputs={}, mlflow_run_ids=list(run_ids))
