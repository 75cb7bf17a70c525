"""From tracked runs to conclusions: comparable or refused, then statistics, page and tables."""

from pipelines.compare.model import Report
from pipelines.compare.output import write_report
from pipelines.compare.report import build_report
from pipelines.compare.summary import log_chart_view, log_summaries
from pipelines.compare.terminal import print_report

__all__ = [
    "Report",
    "build_report",
    "log_chart_view",
    "log_summaries",
    "print_report",
    "write_report",
]
