"""From tracked runs to conclusions: comparable or refused, then statistics, page and tables."""

from pipelines.compare.appraise import appraise
from pipelines.compare.cost_runs import log_costs
from pipelines.compare.model import Report
from pipelines.compare.output import write_report
from pipelines.compare.report import build_report
from pipelines.compare.summary import log_chart_view, log_summaries
from pipelines.compare.terminal import print_report

__all__ = [
    "Report",
    "appraise",
    "build_report",
    "log_chart_view",
    "log_costs",
    "log_summaries",
    "print_report",
    "write_report",
]
