"""The charts' look, the same on every page."""

import plotly.graph_objects as go

from pipelines.strategies import Framework

__all__ = ["COLOURS", "styled"]

COLOURS: dict[Framework, str] = {"tf": "#E8710A", "torch": "#5B5BD6"}
"""Far apart in hue and in lightness, and legible on light and dark ground."""


def styled(figure: go.Figure, height: int) -> go.Figure:
    """The house's look, on any ground."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 24, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        dragmode=False,
    )
    # Fixed axes let a finger scroll the page across a chart.
    figure.update_xaxes(automargin=True, fixedrange=True, zeroline=False)
    figure.update_yaxes(automargin=True, fixedrange=True, zeroline=False, ticklabelstandoff=6)
    return figure
