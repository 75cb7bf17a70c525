"""Pages that need no network: styles, charts and their code are inside."""

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from pipelines.page.look import COLOURS

__all__ = ["embed", "render_page"]

_CHART_CONFIG = {"displayModeBar": False, "responsive": True, "plotlyServerURL": ""}
_FOLDERS = ("page", "compare", "parity")
"""Of this package, with templates in them."""


def render_page(template: str, **values: object) -> str:
    """A template in the house's look; every value is escaped."""
    packages = [jinja2.PackageLoader("pipelines", folder) for folder in _FOLDERS]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(packages),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        plotly=get_plotlyjs(), colours=COLOURS, **values
    )


def embed(figure: go.Figure | None, name: str) -> str | None:
    """A chart's own markup, without the library; Plotly escapes what is inside its script."""
    if figure is None:
        return None
    markup: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config=_CHART_CONFIG, div_id=f"chart-{name}"
    )
    return markup
