"""The report's charts, as Plotly figures; each is None where it would show nothing.

Text colours are left to the page's style sheet, which knows about dark mode. A framework is told
by colour, marker and line, so no chart depends on colour vision.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from pipelines.compare import formats
from pipelines.compare.model import Interval, Report
from pipelines.compare.overhead_model import Overhead
from pipelines.metrics import PHASES
from pipelines.page.look import COLOURS, styled
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = [
    "efficiency",
    "first_step",
    "goodput",
    "outlook",
    "phases",
    "pipelines",
    "splits",
    "throughput",
]

_MARKERS: dict[Framework, str] = {"tf": "circle", "torch": "diamond"}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

# Start-up in blues, restoring in violet, tracing and warm-up in sands, the work itself in green,
# saving in a greyer one, the work's check in rose, what comes after it in greys.
_PHASE_COLOURS = dict(
    zip(
        PHASES,
        (
            *("#162B44", "#24466B", "#4677A8", "#7FA8D1", "#B9D0E8", "#8E7CC3", "#B8892F"),
            *("#E3C77F", "#2E9E6B", "#5F9EA0", "#C9688F", "#8A8F98", "#B9BDC4"),
        ),
        strict=True,
    )
)
_OTHER = "#9AA0A6"
_STEP_PARTS = (
    ("compute", "compute_seconds", "#2E9E6B"),
    ("training loop", "host_seconds", "#B8892F"),
    ("input wait", "input_seconds", "#4677A8"),
    ("communication", "communication_seconds", "#C9688F"),
)
_FIRST_STEP_COLOURS = {
    **{name.removesuffix("_seconds"): colour for name, colour in _PHASE_COLOURS.items()},
    "compile": _PHASE_COLOURS["first_step_seconds"],
    "step": _PHASE_COLOURS["train_seconds"],
}
_GOODPUT_COLOURS = {
    "step": "#2E9E6B",
    "initialisation": "#24466B",
    "data_wait": "#4677A8",
    "barrier": "#C9688F",
    "tracking": "#E3C77F",
    "evaluation": "#B8892F",
    "checkpoint_save": "#5F9EA0",
    "checkpoint_restore": "#8E7CC3",
    "wasted_steps": "#B3261E",
    "shutdown": "#9AA0A6",
}
"""Steps that count first, then what a reader would want less of."""
_SPREAD = 0.16
"""Distance between neighbouring series at one worker count, in counts."""
_ASIDE = 0.05
"""How far to the right of its median a repeat stands."""


def throughput(report: Report) -> go.Figure | None:
    """Examples per second by workers: medians with intervals, every repeat, the ideal lines."""
    if not report.cells:
        return None
    counts = sorted({cell.workers for cell in report.cells})
    figure = go.Figure()
    for name, framework, look, shift, cells in _series(report.cells):
        xs = [counts.index(cell.workers) + shift for cell in cells]
        figure.add_scatter(
            x=[x + _ASIDE for x, cell in zip(xs, cells, strict=True) for _ in cell.repeats],
            y=[rate for cell in cells for rate in cell.repeats],
            mode="markers",
            marker={"color": COLOURS[framework], "size": 6, "opacity": 0.55},
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"{name}<br>one repeat: %{{y:,.0f}}/s<extra></extra>",
        )
        if len(cells) > 1:
            base = cells[0]
            figure.add_scatter(
                x=xs,
                y=[base.median * cell.workers / base.workers for cell in cells],
                mode="lines",
                line={"color": COLOURS[framework], "width": 1.2, "dash": "dot"},
                opacity=0.7,
                legendgroup=name,
                showlegend=False,
                hoverinfo="skip",
            )
        _add_medians(
            figure, name, framework, look, xs, [(cell.median, cell.interval95) for cell in cells]
        )
        figure.data[-1].hovertemplate = f"{name}<br>median: %{{y:,.0f}}/s<extra></extra>"
    _count_axis(figure, counts)
    figure.update_yaxes(title="examples/s", rangemode="tozero", tickformat=",")
    return styled(figure, height=380)


def efficiency(report: Report) -> go.Figure | None:
    """Scaling efficiency by workers with intervals, against the ideal line at 1."""
    counts = sorted({point.workers for point in report.scaling})
    if len(counts) < 2:
        return None
    figure = go.Figure()
    figure.add_hline(y=1, line={"dash": "dot", "width": 1.5, "color": _OTHER})
    for name, framework, look, shift, points in _series(report.scaling):
        _add_medians(
            figure,
            name,
            framework,
            look,
            [counts.index(point.workers) + shift for point in points],
            [(point.efficiency, point.interval95) for point in points],
        )
        figure.data[-1].hovertemplate = f"{name}<br>efficiency: %{{y:.1%}}<extra></extra>"
    _count_axis(figure, counts)
    tops = [(point.interval95 or (0, point.efficiency))[1] for point in report.scaling]
    figure.update_yaxes(
        title="share of ideal throughput", tickformat=".0%", range=[0, 1.08 * max(1, *tops)]
    )
    return styled(figure, height=380)


def phases(report: Report) -> go.Figure | None:
    """Where a run's wall clock went: one stacked bar per cell, medians."""
    cells = [cell for cell in report.cells if cell.phases]
    if not cells:
        return None
    several = len({(cell.framework, cell.strategy) for cell in cells}) > len(
        {cell.framework for cell in cells}
    )
    labels = [
        # Short where it may be: a phone has no room for both.
        f"{escape(formats.title(cell.framework, cell.strategy if several else ''))}"
        f"<br>{formats.workers(cell.workers)}"
        for cell in cells
    ]
    figure = go.Figure()
    for phase in PHASES:
        values = [cell.phases.get(phase, 0) for cell in cells]
        if not any(values):  # nothing was saved, or gone on with
            continue
        _add_share(figure, formats.phase_title(phase), labels, values, _PHASE_COLOURS[phase])
    rest = [max(0.0, (cell.wall_seconds or 0) - sum(cell.phases.values())) for cell in cells]
    if any(rest):
        _add_share(figure, "other", labels, rest, _OTHER)
    figure.update_layout(barmode="stack", bargap=0.35, legend_entrywidth=84)
    figure.update_xaxes(title="seconds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=150 + 62 * len(cells))


def first_step(report: Report) -> go.Figure | None:
    """Seconds until the first step is done, as the slowest worker sees them: a bar a framework."""
    sides = report.overhead.values()
    return _shares([(side, side.first_step) for side in sides], _FIRST_STEP_COLOURS)


def goodput(report: Report) -> go.Figure | None:
    """Where a run's wall clock goes by the ledger: a bar a framework."""
    sides = report.overhead.values()
    return _shares([(side, side.goodput) for side in sides], _GOODPUT_COLOURS)


def _shares(
    sides: Sequence[tuple[Overhead, Mapping[str, float]]], colours: Mapping[str, str]
) -> go.Figure | None:
    """A stacked bar for each side, its parts in the order of their colours."""
    sides = [(side, parts) for side, parts in sides if parts]
    if not sides:
        return None
    labels = [
        f"{escape(formats.title(side.framework))}<br>{formats.workers(side.workers)}"
        for side, _ in sides
    ]
    figure = go.Figure()
    for name, colour in colours.items():
        values = [parts.get(name, 0.0) for _, parts in sides]
        if any(values):
            _add_share(figure, name.replace("_", " "), labels, values, colour)
    figure.update_layout(barmode="stack", bargap=0.35, legend_entrywidth=110)
    figure.update_xaxes(title="seconds", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=150 + 62 * len(labels))


def splits(report: Report) -> go.Figure | None:
    """Where a step's time goes: one stacked bar per cell that was taken apart."""
    if not report.splits:
        return None
    several = len({(each.framework, each.strategy) for each in report.splits}) > len(
        {each.framework for each in report.splits}
    )
    labels = [
        f"{escape(formats.title(each.framework, each.strategy if several else ''))}"
        f"<br>{formats.workers(each.workers)}{formats.strong(each.scaling)}"
        for each in report.splits
    ]
    figure = go.Figure()
    for name, field, colour in _STEP_PARTS:
        values = [1000 * (getattr(each, field) or 0.0) for each in report.splits]
        _add_share(figure, name, labels, values, colour, "ms")
    figure.update_layout(barmode="relative", bargap=0.35)
    figure.update_xaxes(title="milliseconds of a step")
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=150 + 62 * len(labels))


def outlook(report: Report) -> go.Figure | None:
    """Beyond the measured worker counts: the fitted laws, and the prediction."""
    forecasts = report.prediction.forecasts if report.prediction else []
    if not report.laws and not forecasts:
        return None
    figure = go.Figure()
    for name, framework, _, _, cells in _series(report.cells):
        figure.add_scatter(
            x=[cell.workers for cell in cells],
            y=[cell.median for cell in cells],
            mode="markers",
            marker={"color": COLOURS[framework], "size": 10, "symbol": _MARKERS[framework]},
            name=f"{name}, measured",
            hovertemplate="%{x} workers, measured: %{y:,.0f}/s<extra></extra>",
        )
    for fitted in report.laws:
        _add_line(
            figure,
            f"{_named(fitted)}, fitted law",
            COLOURS[fitted.framework],
            "dot",
            [(point.workers, point.throughput, point.interval95) for point in fitted.law.curve],
        )
    for forecast in forecasts:
        _add_line(
            figure,
            f"{_named(forecast)}, PREDICTED",
            COLOURS[forecast.framework],
            "dash",
            [
                (point.workers, point.examples_per_second, point.examples_per_second_interval95)
                for point in forecast.points
            ],
        )
    counts = {cell.workers for cell in report.cells}
    counts |= {point.workers for forecast in forecasts for point in forecast.points}
    ticks = sorted(counts)
    figure.update_xaxes(title="workers", type="log", tickvals=ticks, ticktext=[*map(str, ticks)])
    figure.update_yaxes(title="examples/s", type="log", dtick=1, tickformat=",")
    return styled(figure, height=420)


def _named(row: Any) -> str:
    return f"{escape(formats.title(row.framework, row.strategy))}{formats.strong(row.scaling)}"


def _add_line(
    figure: go.Figure,
    name: str,
    colour: str,
    dash: str,
    points: list[tuple[int, float, Interval | None]],
) -> None:
    figure.add_scatter(
        x=[workers for workers, _, _ in points],
        y=[rate for _, rate, _ in points],
        error_y=_error_bars([(rate, ends) for _, rate, ends in points], thickness=1, width=3),
        mode="lines",
        line={"color": colour, "width": 1.8, "dash": dash},
        name=name,
        hovertemplate=f"{name}<br>%{{x}} workers: %{{y:,.0f}}/s<extra></extra>",
    )


def pipelines(report: Report) -> go.Figure | None:
    """Seconds of each DAG stage, the frameworks side by side."""
    if not any(run.stages for run in report.pipelines.values()):
        return None
    figure = go.Figure()
    for framework in FRAMEWORKS:
        run = report.pipelines.get(framework)
        if run is None:
            continue
        figure.add_bar(
            y=list(run.stages),
            x=list(run.stages.values()),
            name=formats.title(framework),
            orientation="h",
            marker={"color": COLOURS[framework]},
            text=[formats.seconds(value) for value in run.stages.values()],
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"{formats.title(framework)}<br>%{{y}}: %{{x:.1f}} s<extra></extra>",
        )
    longest = max(value for run in report.pipelines.values() for value in run.stages.values())
    figure.update_layout(barmode="group", bargap=0.3, bargroupgap=0.08)
    figure.update_xaxes(title="seconds", range=[0, 1.18 * longest])  # room for the last label
    figure.update_yaxes(autorange="reversed")
    return styled(figure, height=380)


def _series(rows: Iterable[Any]) -> Iterable[tuple[str, Framework, str, float, list[Any]]]:
    """Rows by framework and strategy: (title, framework, dash, shift along x, rows by workers)."""
    members: dict[tuple[Framework, str, str], list[Any]] = {}
    for row in rows:
        members.setdefault((row.framework, row.strategy, row.scaling), []).append(row)
    order = sorted(members)
    seen: dict[Framework, int] = dict.fromkeys(FRAMEWORKS, 0)
    for place, (framework, strategy, scaling) in enumerate(order):
        dash = _DASHES[seen[framework] % len(_DASHES)]
        seen[framework] += 1
        shift = _SPREAD * (place - (len(order) - 1) / 2)
        # Plotly reads a subset of HTML in names, and a strategy's name comes from a parameter.
        name = f"{escape(formats.title(framework, strategy))}{formats.strong(scaling)}"
        rows = sorted(members[framework, strategy, scaling], key=lambda row: row.workers)
        yield name, framework, dash, shift, rows


def _add_medians(
    figure: go.Figure,
    name: str,
    framework: Framework,
    dash: str,
    xs: list[float],
    values: list[tuple[float, Interval | None]],
) -> None:
    figure.add_scatter(
        x=xs,
        y=[middle for middle, _ in values],
        error_y=_error_bars(values, thickness=1.8, width=6),
        mode="lines+markers",
        line={"color": COLOURS[framework], "width": 2, "dash": dash},
        marker={"size": 10, "symbol": _MARKERS[framework]},
        name=name,
        legendgroup=name,
    )


def _error_bars(
    values: list[tuple[float, Interval | None]], *, thickness: float, width: float
) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [ends[1] - middle if ends else 0 for middle, ends in values],
        "arrayminus": [middle - ends[0] if ends else 0 for middle, ends in values],
        "thickness": thickness,
        "width": width,
    }


def _add_share(
    figure: go.Figure,
    name: str,
    labels: list[str],
    values: list[float],
    colour: str,
    unit: str = "s",
) -> None:
    figure.add_bar(
        y=labels,
        x=values,
        name=name,
        orientation="h",
        marker={"color": colour},
        hovertemplate=f"{name}: %{{x:.2f}} {unit}<extra></extra>",
    )


def _count_axis(figure: go.Figure, counts: list[int]) -> None:
    figure.update_xaxes(
        title="workers",
        tickvals=list(range(len(counts))),
        ticktext=[str(count) for count in counts],
        range=[-0.5, len(counts) - 0.5],
        showgrid=False,
    )
