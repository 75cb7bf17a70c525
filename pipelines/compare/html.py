"""The report as one HTML page that needs no network."""

from datetime import datetime

from pipelines.compare import formats, plots
from pipelines.compare.maintenance_table import details_of, reasons_of, rows_of, twin_files
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
        upkeep=_upkeep(report),
    )


def _upkeep(report: Report) -> dict[str, object]:
    """The ledger in words."""
    sides = report.maintenance
    rows = rows_of(
        {name: kept.figures for name, kept in sides.items()},
        {name: kept.not_checked for name, kept in sides.items()},
    )
    details = {name: kept.details for name, kept in sides.items() if kept.details}
    return {
        "rows": rows,
        "reasons": reasons_of(rows),
        "files": twin_files({name: each.files for name, each in details.items()})
        if len(details) == len(sides)
        else [],
        "details": {name: details_of(each) for name, each in details.items()},
    }
