import base64
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.chart_view import VIEW_TAG
from pipelines.cli import actions
from pipelines.cli.narrator import Narrator
from pipelines.compare import Report, build_report, log_chart_view, log_summaries
from pipelines.config import Config
from pipelines.errors import DeniedError
from pipelines.page.look import COLOURS

STUDY = "20250601T120000Z"
OTHER_STUDY = "20250602T120000Z"
NAMES = ["tf multi_worker_mirrored weak", "torch ddp weak"]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def config(uri: str, tmp_path: Path, load_quickstart: Callable[..., Config]) -> Config:
    made = load_quickstart(f"name={tmp_path.name}", f"tracking.uri={uri}")
    tracking.prepare_store(made)
    return made


@pytest.fixture
def report(full_study: Any) -> Report:
    return build_report(full_study.runs)


@pytest.fixture
def history(uri: str) -> Callable[[str, str], dict[int, float]]:
    """A run's metric by step."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)

    def read(run_id: str, metric: str) -> dict[int, float]:
        return {point.step: point.value for point in client.get_metric_history(run_id, metric)}

    return read


def view_of(config: Config) -> dict[str, Any]:
    """The view that the experiment's tag holds, as the UI decodes it."""
    state = json.loads(tracking.experiment_tags(config)[VIEW_TAG])["state"]
    view: dict[str, Any] = json.loads(
        zlib.decompress(base64.b64decode(state.removeprefix("deflate;")))
    )
    return view


def with_strong(report: Report) -> Report:
    """The same cells once more, as if they had been measured under strong scaling too."""
    cells = [cell.model_copy(update={"scaling": "strong"}) for cell in report.cells]
    points = [point.model_copy(update={"scaling": "strong"}) for point in report.scaling]
    return report.model_copy(
        update={"cells": [*cells, *report.cells], "scaling": [*points, *report.scaling]}
    )


def test_each_framework_has_one_run_with_a_point_per_worker_count(
    config: Config, report: Report, history: Callable[[str, str], dict[int, float]]
) -> None:
    added = log_summaries(config, report, [])

    runs = tracking.read_runs(config)
    assert sorted(run.run_id for run in runs) == sorted(added)
    assert [run.name for run in runs] == NAMES
    assert {(run.kind, run.status) for run in runs} == {("summary", "FINISHED")}
    tf, torch = runs
    assert tf.params["summary_of"] == torch.params["summary_of"] == STUDY
    assert (torch.params["framework"], torch.params["scaling"]) == ("torch", "weak")
    assert history(tf.run_id, "examples_per_second") == {1: 2310.4, 2: 3905.5}
    assert history(torch.run_id, "scaling_efficiency") == pytest.approx(
        {1: 1.0, 2: 4420.1 / (2 * 2512.7)}
    )
    assert history(torch.run_id, "eval_accuracy") == {1: 0.966, 2: 0.966}
    assert history(torch.run_id, "time_to_first_step_seconds") == pytest.approx({1: 6.7, 2: 7.5})


def test_the_kinds_of_scaling_are_kept_apart_and_the_frameworks_take_turns(
    config: Config, report: Report
) -> None:
    log_summaries(config, with_strong(report), [])

    runs = tracking.read_runs(config)
    assert [(run.name, run.params["scaling"]) for run in runs] == [
        ("tf multi_worker_mirrored strong", "strong"),
        ("torch ddp strong", "strong"),
        ("tf multi_worker_mirrored weak", "weak"),
        ("torch ddp weak", "weak"),
    ]


def test_frameworks_are_told_apart_by_the_reports_colours_and_curves_by_their_shades(
    config: Config, report: Report
) -> None:
    log_summaries(config, with_strong(report), [])

    colours = {run.name: run.tags["mlflow.runColor"] for run in tracking.read_runs(config)}
    assert colours["tf multi_worker_mirrored strong"] == COLOURS["tf"]
    assert colours["torch ddp strong"] == COLOURS["torch"]
    assert len(set(colours.values())) == 4
    assert colours["torch ddp weak"] == "#A5A5E8"  # 45 % of the way from #5B5BD6 to white


def test_the_same_comparison_twice_adds_nothing(config: Config, report: Report) -> None:
    first = log_summaries(config, report, [])

    assert log_summaries(config, report, tracking.read_runs(config)) == []
    assert {run.run_id for run in tracking.read_runs(config)} == set(first)


def test_what_a_continued_study_changed_is_replaced_and_the_rest_stays(
    config: Config,
    full_study: Any,
    report: Report,
    history: Callable[..., dict[int, float]],
    uri: str,
) -> None:
    from mlflow import MlflowClient

    log_summaries(config, report, [])
    tf, torch = tracking.read_runs(config)
    full_study.repeats("torch", 4, [8000.0, 8100.0, 7900.0])

    [added] = log_summaries(config, build_report(full_study.runs), tracking.read_runs(config))

    assert {run.run_id for run in tracking.read_runs(config)} == {tf.run_id, added}
    assert history(added, "examples_per_second") == {1: 2512.7, 2: 4420.1, 4: 8000.0}
    MlflowClient(uri).restore_run(torch.run_id)  # deleted, and no more than that
    assert len(tracking.read_runs(config)) == 3


def test_a_summary_that_was_cut_off_is_replaced(config: Config, report: Report) -> None:
    tf, torch = log_summaries(config, report, [])
    records = tracking.read_runs(config)
    cut_off = [run if run.run_id == tf else replace(run, status="RUNNING") for run in records]

    [added] = log_summaries(config, report, cut_off)

    assert added != torch
    assert {run.run_id for run in tracking.read_runs(config)} == {tf, added}


def test_the_summaries_of_another_study_stay(config: Config, report: Report) -> None:
    before = log_summaries(config, report.model_copy(update={"study_id": OTHER_STUDY}), [])

    added = log_summaries(config, report, tracking.read_runs(config))

    assert {run.run_id for run in tracking.read_runs(config)} == {*before, *added}
    assert len(added) == 2


def test_the_charts_are_those_of_the_study_that_was_compared_last(
    config: Config, report: Report
) -> None:
    log_chart_view(config, report)
    first = view_of(config)
    log_chart_view(config, report.model_copy(update={"study_id": OTHER_STUDY}))

    assert first["searchFilter"] == f"params.summary_of = '{STUDY}'"
    assert view_of(config)["searchFilter"] == f"params.summary_of = '{OTHER_STUDY}'"
    ends = {card["metricKey"]: card["range"] for card in first["compareRunCharts"]}
    assert 2 < ends["examples_per_second"]["xMax"] < 3
    assert 4420.1 < ends["examples_per_second"]["yMax"] < 1.25 * 4420.1


def test_without_cells_there_is_nothing_to_draw(config: Config, report: Report) -> None:
    empty = report.model_copy(update={"cells": [], "scaling": []})

    assert log_summaries(config, empty, []) == []
    log_chart_view(config, empty)

    assert VIEW_TAG not in tracking.experiment_tags(config)
    assert tracking.read_runs(config) == []


def test_who_may_only_read_has_the_report_and_is_told_what_was_not_logged(
    full_study: Any,
    load_quickstart: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = load_quickstart("tracking.uri=http://mlflow:5000")

    def deny(*_: object, **__: object) -> None:
        raise DeniedError("tracking.uri: refuses these credentials")

    monkeypatch.setattr(tracking, "read_runs", lambda config: full_study.runs)
    for name in ("create_run", "delete_runs", "tag_experiment"):
        monkeypatch.setattr(tracking, name, deny)
    monkeypatch.setattr(tracking, "read_file", lambda *_: None)

    report = actions.compare(config, Narrator())

    assert json.loads((config.output / "report.json").read_text())["study_id"] == report.study_id
    [note] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert note == (
        "note: this user may only read at http://mlflow:5000, so MLflow has no summary of this "
        "comparison, and its charts stay as they were"
    )
