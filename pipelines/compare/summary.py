"""The comparison's own runs in MLflow: one per framework, strategy and kind of scaling.

Each has a point per worker count (the step is the number of workers), so MLflow's charts draw
scaling curves, which single cells cannot. ``log_chart_view`` prepares those charts.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipelines import tracking
from pipelines.chart_view import SUMMARY_PARAM, VIEW_TAG, chart_view, encode_view
from pipelines.compare.cost_runs import COST_PARAM
from pipelines.compare.model import Cell, Report
from pipelines.compare.superseding import DIGEST_PARAM, supersede
from pipelines.config import Config
from pipelines.page.look import COLOURS
from pipelines.runs import STUDY_TAG, RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["log_chart_view", "log_summaries"]

_SHADES = (0.0, 0.45, 0.25, 0.6)
"""How far towards white a framework's first, second ... curve is drawn: neighbours far apart."""

_Points = dict[int, dict[str, float]]
"""Workers -> metric -> median, or efficiency."""


@dataclass(frozen=True)
class _Curve:
    """What one framework, strategy and kind of scaling came to."""

    framework: Framework
    strategy: str
    scaling: str
    colour: str
    points: _Points

    @property
    def name(self) -> str:
        """The run's name, and so the charts' legend, which is narrow: ``torch ddp weak``."""
        return f"{self.framework} {self.strategy} {self.scaling}"

    @property
    def digest(self) -> str:
        """The same for the same curve."""
        content = json.dumps([self.name, self.colour, self.points], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def log_summaries(config: Config, report: Report, records: Sequence[RunRecord]) -> list[str]:
    """Log a study's curves, unless ``records`` hold them; returns the ids of the added runs.

    What else summarises this study is superseded, for instance because it has gone on since, and
    is deleted.
    """
    before = [
        run
        for run in records
        if run.kind == "summary"
        and run.tags.get(STUDY_TAG) == report.study_id
        and COST_PARAM not in run.params
    ]
    curves = {curve.digest: partial(_log, config, report, curve) for curve in _curves(report)}
    return supersede(config, before, curves)


def log_chart_view(config: Config, report: Report) -> None:
    """Make the curves of this study what the experiment's prepared charts show."""
    curves = _curves(report)
    if not curves:
        return
    highest: dict[str, float] = {}
    for curve in curves:
        for metrics in curve.points.values():
            for name, value in metrics.items():
                highest[name] = max(highest.get(name, 0.0), value)
    most_workers = max(workers for curve in curves for workers in curve.points)
    view = chart_view(report.study_id, most_workers, highest)
    tracking.tag_experiment(config, VIEW_TAG, encode_view(view, report.created))


def _curves(report: Report) -> list[_Curve]:
    """The frameworks in turn, so that the first lines of a legend name both."""
    points: dict[tuple[Framework, str, str], _Points] = {}
    for cell in report.cells:
        curve = points.setdefault((cell.framework, cell.strategy, cell.scaling), {})
        curve[cell.workers] = _medians(cell)
    for point in report.scaling:
        curve = points[point.framework, point.strategy, point.scaling]
        curve[point.workers]["scaling_efficiency"] = point.efficiency
    places: dict[Framework, int] = dict.fromkeys(FRAMEWORKS, 0)
    curves: list[tuple[int, _Curve]] = []
    for key in sorted(points):
        framework, strategy, scaling = key
        place = places[framework]
        places[framework] += 1
        colour = _lightened(COLOURS[framework], _SHADES[place % len(_SHADES)])
        curves.append((place, _Curve(framework, strategy, scaling, colour, points[key])))
    return [curve for _, curve in sorted(curves, key=lambda one: one[0])]


def _medians(cell: Cell) -> dict[str, float]:
    values = {
        "examples_per_second": cell.median,
        "step_seconds": cell.step_seconds,
        "wall_seconds": cell.wall_seconds,
        "time_to_first_step_seconds": cell.time_to_first_step_seconds,
        "goodput_share": cell.goodput_share,
        **cell.eval_metrics,
    }
    return {name: value for name, value in values.items() if value is not None}


def _log(config: Config, report: Report, curve: _Curve) -> str:
    params = {
        "study": report.study,
        SUMMARY_PARAM: report.study_id,
        "framework": curve.framework,
        "strategy": curve.strategy,
        "scaling": curve.scaling,
        "dataset_fingerprint": report.dataset.fingerprint,
        DIGEST_PARAM: curve.digest,
    }
    run_id = tracking.create_run(
        config, curve.name, "summary", report.study_id, params, colour=curve.colour
    )
    tracking.log_curves(config, run_id, curve.points)
    tracking.finish_run(config, run_id, "FINISHED")
    return run_id


def _lightened(colour: str, share: float) -> str:
    """``#RRGGBB``, moved that share of the way to white."""
    channels = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{round(value + share * (255 - value)):02X}" for value in channels)
