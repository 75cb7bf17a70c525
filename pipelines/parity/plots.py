"""The proof's charts: the losses, and how far the runs lie apart, step by step."""

from typing import Any

import plotly.graph_objects as go

from pipelines.page.look import COLOURS, styled
from pipelines.parity.model import Comparison, Parity
from pipelines.parity.trace import Quantity
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["differences", "losses"]

_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_BETWEEN, _NOISE, _BOUND = "#2E9E6B", "#9AA0A6", "#D64545"


def losses(parity: Parity) -> go.Figure:
    """The loss of every run; where they agree, one line hides the others."""
    figure = go.Figure()
    for curve in parity.curves:
        figure.add_scatter(
            x=_steps(parity),
            y=curve.loss,
            mode="lines",
            name=curve.run,
            line={"color": COLOURS[_framework(curve.run)], "dash": _dash(parity, curve.run)},
            hovertemplate="%{y:.9g}",
        )
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="loss, nats")
    figure.update_layout(hovermode="x")
    return styled(figure, height=380)


def differences(parity: Parity, quantity: Quantity) -> go.Figure:
    """Relative differences of one quantity on a log axis, with the self-noise and the bound."""
    figure = go.Figure()
    [limits] = [each for each in parity.bounds if each.quantity == quantity]
    # A floor of zero (no noise yet) has no place on a log axis; the area begins where it does.
    figure.add_scatter(
        x=_steps(parity),
        y=_positive(limits.floor),
        name=f"self-noise of {parity.floor_run}",
        mode="lines",
        line={"color": _NOISE, "width": 4},
        opacity=0.6,
        hovertemplate="%{y:.1e}",
    )
    for comparison in parity.comparisons:
        [check] = [each for each in comparison.steps if each.quantity == quantity]
        figure.add_scatter(
            x=_steps(parity),
            y=_positive(check.differences),
            name=_title(comparison),
            mode="lines",
            connectgaps=True,
            line=_line(parity, comparison),
            hovertemplate="%{y:.1e}",
        )
    figure.add_scatter(
        x=_steps(parity),
        y=limits.bound,
        name="bound",
        mode="lines",
        line={"color": _BOUND, "width": 2, "dash": "dash", "shape": "hv"},
        hovertemplate="%{y:.1e}",
    )
    figure.update_xaxes(title="step")
    figure.update_yaxes(
        title="relative difference", type="log", exponentformat="power", dtick=1, showgrid=True
    )
    figure.update_layout(hovermode="x")
    return styled(figure, height=420)


def _steps(parity: Parity) -> list[int]:
    return list(range(1, parity.steps + 1))


def _positive(values: list[float]) -> list[float | None]:
    return [value if 0 < value < float("inf") else None for value in values]


def _title(comparison: Comparison) -> str:
    return comparison.title.replace(" and ", " − ")  # noqa: RUF001


def _line(parity: Parity, comparison: Comparison) -> dict[str, Any]:
    if comparison.kind == "order":
        return {"color": _NOISE, "width": 1.5, "dash": "dot"}
    if comparison.kind == "frameworks":
        return {"color": _BETWEEN, "width": 2, "dash": _dash(parity, comparison.left)}
    return {
        "color": COLOURS[_framework(comparison.left)],
        "width": 1.5,
        "dash": _dash(parity, comparison.left),
    }


def _framework(run: str) -> Framework:
    return next(each for each in FRAMEWORKS if run.startswith(f"{each} "))


def _dash(parity: Parity, run: str) -> str:
    workers = int(run.split(",")[0].rpartition("x")[2])
    return _DASHES[parity.workers.index(workers) % len(_DASHES)]
