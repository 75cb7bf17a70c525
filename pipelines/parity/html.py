"""The verdict as one HTML page that needs no network."""

from datetime import datetime

from pipelines.page.html import embed, render_page
from pipelines.parity import formats, plots
from pipelines.parity.model import Parity
from pipelines.parity.trace import QUANTITIES

__all__ = ["render_html"]


def render_html(parity: Parity) -> str:
    """The whole page; every value is escaped."""
    return render_page(
        "parity.html.j2",
        parity=parity,
        losses=embed(plots.losses(parity), "losses"),
        differences={
            quantity: embed(plots.differences(parity, quantity), quantity)
            for quantity in QUANTITIES
        },
        created=datetime.fromisoformat(parity.created),
        f=formats,
    )
