"""The report as one HTML page that needs no network: styles, charts and their code are inside."""

from datetime import datetime

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pipelines.compare import formats, plots
from pipelines.compare.model import Report

__all__ = ["embed", "render_html"]

_CHART_CONFIG = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}


def render_html(report: Report) -> str:
    """The whole page; every value from the report is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipelines", "compare"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = {
        "throughput": embed(plots.throughput(report), "throughput"),
        "efficiency": embed(plots.efficiency(report), "efficiency"),
        "phases": embed(plots.phases(report), "phases"),
        "pipelines": embed(plots.pipelines(report), "pipelines"),
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        charts=charts,
        plotly=get_plotlyjs(),
        colours=plots.COLOURS,
        created=datetime.fromisoformat(report.created),
        f=formats,
    )


def embed(figure: go.Figure | None, name: str) -> str | None:
    """A chart's own markup, without the library; Plotly escapes what is inside its script."""
    if figure is None:
        return None
    markup: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=_CHART_CONFIG, div_id=f"chart-{name}"
    )
    return markup
