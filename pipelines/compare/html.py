"""The report as one HTML page that needs no network."""

from datetime import datetime

from pipelines.compare import formats, plots
from pipelines.compare.model import Report
from pipelines.compare.overhead_rows import overhead_lines
from pipelines.page.html import embed, render_page
from pipelines.parity import plots as parity_plots

__all__ = ["render_html"]


def render_html(report: Report) -> str:
    """The whole page; every value from the report is escaped."""
    charts = {
        "throughput": embed(plots.throughput(report), "throughput"),
        "efficiency": embed(plots.efficiency(report), "efficiency"),
        "splits": embed(plots.splits(report), "splits"),
        "outlook": embed(plots.outlook(report), "outlook"),
        "phases": embed(plots.phases(report), "phases"),
        "pipelines": embed(plots.pipelines(report), "pipelines"),
        "first_step": embed(plots.first_step(report), "first-step"),
        "goodput": embed(plots.goodput(report), "goodput"),
    }
    parity = [
        {
            "verdict": each,
            "losses": embed(parity_plots.losses(each), f"parity-losses-{number}"),
            "differences": embed(
                parity_plots.differences(each, "loss"), f"parity-differences-{number}"
            ),
        }
        for number, each in enumerate(report.parity)
    ]
    return render_page(
        "report.html.j2",
        report=report,
        charts=charts,
        parity=parity,
        overhead_lines=overhead_lines(report.overhead),
        created=datetime.fromisoformat(report.created),
        f=formats,
    )
