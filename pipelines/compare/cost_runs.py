"""A report's costs in MLflow: one flat run per framework, beside the curves of ``summary``."""

import hashlib
from collections.abc import Sequence
from functools import partial

from pipelines import tracking
from pipelines.compare.cost import Cost
from pipelines.compare.model import Report
from pipelines.compare.superseding import DIGEST_PARAM, supersede
from pipelines.config import Config
from pipelines.page.look import COLOURS
from pipelines.runs import STUDY_TAG, RunRecord

__all__ = ["COST_PARAM", "log_costs"]

COST_PARAM = "cost_of"
"""On a cost's run alone: the id of its study."""


def log_costs(config: Config, report: Report, records: Sequence[RunRecord]) -> list[str]:
    """Log each framework's costs, unless ``records`` hold them; returns the ids of the added runs.

    What else was computed for this study, with other prices or before it went on, is deleted.
    """
    before = [
        run
        for run in records
        if run.kind == "summary"
        and run.tags.get(STUDY_TAG) == report.study_id
        and COST_PARAM in run.params
    ]
    costs = {_digest(cost): partial(_log, config, report, cost) for cost in report.cost.values()}
    return supersede(config, before, costs)


def _digest(cost: Cost) -> str:
    return hashlib.sha256(cost.model_dump_json().encode()).hexdigest()


def _metrics(cost: Cost) -> dict[str, float]:
    model = cost.per_model
    figures = {
        "cost_per_run": cost.per_run.total,
        "cost_per_million_examples": cost.per_million_examples.total,
        "cost_per_model": model.total,
        "cost_compute": model.compute,
        "cost_lost_goodput": model.lost_goodput,
        "cost_pipeline_overhead": model.pipeline_overhead,
        "cost_maintenance": model.maintenance,
    }
    return {
        name: figure.amount
        for name, figure in figures.items()
        if figure is not None and figure.amount is not None
    }


def _log(config: Config, report: Report, cost: Cost) -> str:
    params = {
        "study": report.study,
        COST_PARAM: report.study_id,
        "framework": cost.framework,
        "strategy": cost.strategy,
        "workers": cost.workers,
        "scaling": cost.scaling,
        "prices_as_of": cost.as_of.isoformat(),
        "prices_currency": cost.currency,
        "prices_example": cost.example,
        DIGEST_PARAM: _digest(cost),
    }
    name = f"{cost.framework} cost"
    colour = COLOURS[cost.framework]
    run_id = tracking.create_run(config, name, "summary", report.study_id, params, colour=colour)
    with tracking.ended_if_failed(config, run_id):
        tracking.log_metrics(config, run_id, _metrics(cost))
    tracking.finish_run(config, run_id, "FINISHED")
    return run_id
