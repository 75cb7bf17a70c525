"""The comparison's own runs in MLflow: one per framework and strategy, a point per worker count.

They let MLflow's charts draw scaling curves, which single cells cannot.
"""

from collections.abc import Sequence

from pipelines import tracking
from pipelines.compare.model import Report
from pipelines.config import Config
from pipelines.runs import STUDY_TAG, RunRecord

__all__ = ["log_summaries"]


def log_summaries(config: Config, report: Report, records: Sequence[RunRecord]) -> list[str]:
    """Log the medians of a study, unless ``records`` show that it was done; returns run ids."""
    if any(
        record.kind == "summary" and record.tags.get(STUDY_TAG) == report.study_id
        for record in records
    ):
        return []
    run_ids = []
    for framework, strategy in sorted({(cell.framework, cell.strategy) for cell in report.cells}):
        params = {
            "study": report.study,
            "framework": framework,
            "strategy": strategy,
            "dataset_fingerprint": report.dataset.fingerprint,
        }
        name = f"{framework} {strategy} summary"
        run_id = tracking.create_run(config, name, "summary", report.study_id, params)
        for cell in report.cells:
            if (cell.framework, cell.strategy) == (framework, strategy):
                metrics = {"examples_per_second": cell.median}
                tracking.log_metrics(config, run_id, metrics, step=cell.workers)
        for point in report.scaling:
            if (point.framework, point.strategy) == (framework, strategy):
                metrics = {"scaling_efficiency": point.efficiency}
                tracking.log_metrics(config, run_id, metrics, step=point.workers)
        tracking.finish_run(config, run_id, "FINISHED")
        run_ids.append(run_id)
    return run_ids
