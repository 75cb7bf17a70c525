"""The verdict as one HTML page that needs no network."""

from datetime import datetime

import jinja2
from plotly.offline import get_plotlyjs

from pipelines.compare.html import embed
from pipelines.compare.plots import COLOURS
from pipelines.parity import formats, plots
from pipelines.parity.model import Parity
from pipelines.parity.trace import QUANTITIES

__all__ = ["render_html"]


def render_html(parity: Parity) -> str:
    """The whole page; every value is escaped."""
    packages = ["parity", "compare"]  # the latter has the style sheet
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("pipelines", each) for each in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("parity.html.j2").render(
        parity=parity,
        losses=embed(plots.losses(parity), "losses"),
        differences={
            quantity: embed(plots.differences(parity, quantity), quantity)
            for quantity in QUANTITIES
        },
        plotly=get_plotlyjs(),
        colours=COLOURS,
        created=datetime.fromisoformat(parity.created),
        f=formats,
    )
