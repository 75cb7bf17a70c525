"""A report's costs and scorecard, from what else it holds and the runs behind it."""

from collections.abc import Mapping, Sequence

from pipelines.compare.cost import Cost, cost_of
from pipelines.compare.findings import cost_finding
from pipelines.compare.indicators import indicators_of
from pipelines.compare.model import Report, Settings
from pipelines.compare.overhead_model import Overhead
from pipelines.compare.scorecard import scorecard_of
from pipelines.config import Config
from pipelines.hardware import parse_hardware
from pipelines.prices import Prices
from pipelines.runs import RunRecord
from pipelines.strategies import Framework
from pipelines.workloads import get_thresholds

__all__ = ["appraise"]


def appraise(
    report: Report, records: Sequence[RunRecord], config: Config, prices: Prices | None
) -> Report:
    """The report with its costs, where there are prices, their finding, and its scorecard.

    Args:
        report: the report, with its ``overhead`` and ``maintenance``.
        records: the runs that it was built from.
        config: has the workload's thresholds, and the scorecard's weights.
        prices: of machines and engineers.
    """
    cost = {} if prices is None else _costs(report, records, _thresholds(report, config), prices)
    card = None
    if report.cells:
        card = scorecard_of(indicators_of(report, records), config.scorecard)
    told = cost_finding(cost)
    findings = [*report.findings, *([] if told is None else [told])]
    return report.model_copy(update={"cost": cost, "scorecard": card, "findings": findings})


def _costs(
    report: Report,
    records: Sequence[RunRecord],
    thresholds: Mapping[str, float] | None,
    prices: Prices,
) -> dict[Framework, Cost]:
    metrics = {run.run_id: run.metrics for run in records}
    return {
        framework: cost_of(
            overhead,
            report.maintenance.get(framework),
            [metrics.get(run_id, {}) for run_id in overhead.mlflow_run_ids],
            thresholds,
            _examples_per_run(report.settings, overhead),
            parse_hardware(report.environment.hardware or ""),
            report.settings.threads_per_worker,
            prices,
        )
        for framework, overhead in report.overhead.items()
    }


def _thresholds(report: Report, config: Config) -> dict[str, float] | None:
    """The configuration's, unless the study had another workload."""
    family = (report.settings.workload or "").partition("/")[0]
    return get_thresholds(config.workload) if family == config.workload.name else None


def _examples_per_run(settings: Settings, overhead: Overhead) -> int | None:
    batch = settings.global_batch_size
    if overhead.scaling == "weak":
        per_worker = settings.batch_size_per_worker
        batch = None if per_worker is None else per_worker * overhead.workers
    return None if batch is None or settings.steps is None else batch * settings.steps
