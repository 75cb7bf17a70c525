"""The report as one HTML page that needs no network: styles, charts and their code are inside."""

from datetime import datetime

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pipelines.compare import formats, plots
from pipelines.compare.model import Report

__all__ = ["embed", "render_html", "render_page"]

_CHART_CONFIG = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}


def render_html(report: Report) -> str:
    """The whole page; every value from the report is escaped."""
    charts = {
        "throughput": embed(plots.throughput(report), "throughput"),
        "efficiency": embed(plots.efficiency(report), "efficiency"),
        "splits": embed(plots.splits(report), "splits"),
        "outlook": embed(plots.outlook(report), "outlook"),
        "phases": embed(plots.phases(report), "phases"),
        "pipelines": embed(plots.pipelines(report), "pipelines"),
    }
    return render_page(
        "report.html.j2",
        report=report,
        charts=charts,
        created=datetime.fromisoformat(report.created),
        f=formats,
    )


def render_page(template: str, **values: object) -> str:
    """A template of this package or of ``parity``, in the house's look; every value is escaped."""
    packages = [jinja2.PackageLoader("pipelines", folder) for folder in ("compare", "parity")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(packages),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        plotly=get_plotlyjs(), colours=plots.COLOURS, **values
    )


def embed(figure: go.Figure | None, name: str) -> str | None:
    """A chart's own markup, without the library; Plotly escapes what is inside its script."""
    if figure is None:
        return None
    markup: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=_CHART_CONFIG, div_id=f"chart-{name}"
    )
    return markup
