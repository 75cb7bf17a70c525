import base64
import json
import zlib
from typing import Any

import pytest

from pipelines.chart_view import VIEW_TAG, chart_view, encode_view, runs_page

STUDY = "20250601T120000Z"
HIGHEST = {"scaling_efficiency": 1.0, "examples_per_second": 4500.0, "eval_accuracy": 0.98}


def decode(tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The envelope and the view in it, as the UI reads them."""
    envelope = json.loads(tag)
    kind, _, state = envelope["state"].partition(";")
    assert kind == "deflate"
    return envelope, json.loads(zlib.decompress(base64.b64decode(state)))


def test_the_view_shows_the_summaries_of_one_study() -> None:
    view = chart_view(STUDY, 2, HIGHEST)

    assert view["searchFilter"] == f"params.summary_of = '{STUDY}'"
    assert view["lifecycleFilter"] == "Active"
    assert view["runsHiddenMode"] == "SHOW_ALL"


def test_every_metric_has_a_line_chart_by_workers_in_the_sections_order() -> None:
    view = chart_view(STUDY, 4, HIGHEST)

    cards = view["compareRunCharts"]
    assert [card["metricKey"] for card in cards] == [
        "examples_per_second",
        "scaling_efficiency",
        "eval_accuracy",
    ]
    assert {(card["type"], card["xAxisKey"], card["deleted"]) for card in cards} == {
        ("LINE", "step", False)
    }
    sections = {section["uuid"]: section["name"] for section in view["compareRunSections"]}
    assert [sections[card["metricSectionId"]] for card in cards] == [
        "Scaling (Step = workers)",
        "Scaling (Step = workers)",
        "Time and quality (Step = workers)",
    ]


def test_a_section_without_charts_is_left_out() -> None:
    one = chart_view(STUDY, 4, {"goodput_share": 0.4})

    assert [section["name"] for section in one["compareRunSections"]] == [
        "Overhead (Step = workers)"
    ]


def test_axes_begin_at_zero_and_hold_every_point() -> None:
    for card in chart_view(STUDY, 4, HIGHEST)["compareRunCharts"]:
        ends = card["range"]
        assert (ends["xMin"], ends["yMin"]) == (0, 0)
        assert 4 < ends["xMax"] < 5
        assert 1 < ends["yMax"] / HIGHEST[card["metricKey"]] < 1.25


def test_the_tag_is_what_the_ui_stores_and_within_its_limit() -> None:
    view = chart_view(STUDY, 512, {**HIGHEST, "step_seconds": 0.1, "wall_seconds": 9.0})

    tag = encode_view(view, "2025-06-01T12:00:00+00:00")

    envelope, found = decode(tag)
    assert found == view
    assert envelope["createdAt"] == 1_748_779_200_000
    assert isinstance(envelope["name"], str)
    assert len(tag) < 20_000


@pytest.mark.parametrize(
    ("tags", "page"),
    [
        ({}, "/#/experiments/7/runs"),
        (
            {VIEW_TAG: "{}"},
            "/#/experiments/7/runs?viewStateShareKey=tandem&compareRunsMode=CHART",
        ),
    ],
    ids=["without a view", "with one"],
)
def test_the_page_is_the_charts_where_there_are_some(tags: dict[str, str], page: str) -> None:
    assert runs_page("7", {"mlflow.experimentKind": "custom", **tags}) == page
