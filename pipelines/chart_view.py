"""The charts that MLflow's UI opens with: a shared view of a study's scaling curves.

MLflow (3.17) keeps such a view as a tag of the experiment: JSON with a name, times, and the state
of the page, compressed. The form is the UI's own and undocumented; a browser test holds it.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipelines.metrics import METRICS

__all__ = ["SUMMARY_PARAM", "VIEW_TAG", "chart_view", "encode_view", "runs_page"]

SUMMARY_PARAM = "summary_of"
"""On a summary's run alone: the id of its study. The UI filters by parameters, not by tags."""

_VIEW_KEY = "tandem"
VIEW_TAG = f"mlflow.sharedViewState.{_VIEW_KEY}"

_SECTIONS = {
    "Scaling (Step = workers)": (
        "examples_per_second",
        "scaling_efficiency",
    ),
    "Time and quality (Step = workers)": (
        "step_seconds",
        "wall_seconds",
        *(name for name in METRICS if name.startswith("eval_")),
    ),
    "Overhead (Step = workers)": (
        "time_to_first_step_seconds",
        "goodput_share",
    ),
}
"""What the page is divided into. A chart's own title is always the metric's name."""
_HEADROOM = 1.15
"""Of an axis, over the highest point, where the UI lays its buttons."""


def chart_view(study_id: str, most_workers: int, highest: Mapping[str, float]) -> dict[str, Any]:
    """The page's state: the study's summaries alone, a chart for each metric of ``highest``.

    Args:
        study_id: which study's summaries to show.
        most_workers: where the axis of workers ends.
        highest: metric -> its highest value, where its axis ends. All axes begin at zero, so that
            a difference looks as large as it is.
    """
    cards, sections = [], []
    for title, names in _SECTIONS.items():
        own = [_card(name, title, most_workers, highest[name]) for name in names if name in highest]
        if not own:
            continue
        cards += own
        # Two in a row leave the legends room for the runs' names.
        look = {"display": True, "isReordered": True, "columns": 2}
        sections.append({"uuid": title, "name": title, **look})
    return {
        "searchFilter": f"params.{SUMMARY_PARAM} = '{study_id}'",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": ["params.`framework`", "params.`strategy`", "params.`scaling`"],
        "compareRunCharts": cards,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def encode_view(view: Mapping[str, Any], created: str) -> str:
    """A view as the tag's value; ``created`` is an ISO 8601 time."""
    state = base64.b64encode(zlib.compress(json.dumps(view).encode())).decode()
    milliseconds = int(datetime.fromisoformat(created).timestamp() * 1000)
    envelope = {"name": "Tandem", "createdAt": milliseconds, "state": f"deflate;{state}"}
    return json.dumps(envelope)


def runs_page(experiment_id: str, tags: Mapping[str, str]) -> str:
    """Where an experiment's runs are on a server: its prepared charts, if its tags have some."""
    page = f"/#/experiments/{experiment_id}/runs"
    if VIEW_TAG not in tags:
        return page
    return f"{page}?viewStateShareKey={_VIEW_KEY}&compareRunsMode=CHART"


def _card(name: str, section: str, most_workers: int, highest: float) -> dict[str, Any]:
    """A line chart of one metric; what is not named here is as the UI has it by default."""
    return {
        "uuid": name,
        "type": "LINE",
        "metricKey": name,
        "selectedMetricKeys": [name],
        "metricSectionId": section,
        "isGenerated": False,
        "deleted": False,
        "runsCountToCompare": 100,
        "xAxisKey": "step",
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "displayPoints": True,
        "ignoreOutliers": False,
        "range": {
            "xMin": 0,
            "xMax": _HEADROOM * most_workers,
            "yMin": 0,
            "yMax": _HEADROOM * highest,
        },
    }
