import json
from datetime import datetime
from html.parser import HTMLParser

import pytest

from pipelines.compare import Report, build_report, write_report

FETCHING = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Page(HTMLParser):
    """Collects tags, what the page would fetch, and its text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = [value or "" for name, value in attrs if name in FETCHING]
        if tag == "a":
            self.links += values
        else:
            self.fetched += values
        if tag in ("script", "style"):
            self._inside = tag

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data):
        if not self._inside:
            self.text += data
        if self._inside == "style":
            self.fetched += ["style"] if "url(" in data or "@import" in data else []


def page_of(report, folder):
    html, *_ = write_report(report, folder)
    return Page(html.read_text(encoding="utf-8"))


def test_all_files_are_written_and_nothing_else_is_left(full_study, tmp_path):
    html, data, _ = write_report(build_report(full_study.runs), tmp_path / "new" / "out")
    assert (html.name, data.name) == ("report.html", "report.json")
    assert sorted(path.name for path in html.parent.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_the_json_round_trips_and_keeps_its_shape(full_study, tmp_path):
    report = build_report(full_study.runs)
    _, data, _ = write_report(report, tmp_path)
    assert Report.model_validate_json(data.read_text()) == report
    raw = json.loads(data.read_text())
    assert raw["dataset"]["fingerprint"] == "ab12" * 16
    assert set(raw["cells"][0]) >= {
        "framework", "strategy", "workers", "scaling", "repeats", "median", "interval95",
        "phases", "eval_metrics", "peak_memory_bytes", "mlflow_run_ids",
    }  # fmt: skip
    assert raw["cells"][0]["interval95"] == [2287.9, 2342.2]
    assert raw["scaling"][0]["interval95"] is None
    assert set(raw["pipelines"]) == {"tf", "torch"}
    assert datetime.fromisoformat(raw["created"]).utcoffset() is not None


def test_a_report_is_never_half_written(full_study, tmp_path, monkeypatch):
    report = build_report(full_study.runs)
    html, *_ = write_report(report, tmp_path)
    before = html.read_text()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report(report.model_copy(update={"study": "other"}), tmp_path)
    assert html.read_text() == before


def test_the_page_fetches_nothing(full_study, tmp_path):
    page = page_of(build_report(full_study.runs), tmp_path)
    assert page.fetched == []
    assert not {"link", "iframe", "img", "object", "base"} & set(page.tags)


def test_the_page_answers_first_and_holds_every_figure(full_study, tmp_path):
    report = build_report(full_study.runs)
    page = page_of(report, tmp_path)
    order = [page.text.index(finding.statement) for finding in report.findings]
    order.append(page.text.index("Throughput by workers"))
    order.append(page.text.index("Training runs"))
    order.append(page.text.index("How to read this"))
    assert order == sorted(order)
    for cell in report.cells:
        assert f"{cell.median:,.0f}" in page.text
        assert all(run_id in page.text for run_id in cell.mlflow_run_ids)
    assert all(note in page.text for note in report.notes)


def test_all_four_charts_are_there(full_study, tmp_path):
    html, *_ = write_report(build_report(full_study.runs), tmp_path)
    text = html.read_text(encoding="utf-8")
    for name in ("throughput", "efficiency", "phases", "pipelines"):
        assert f'id="chart-{name}"' in text


def test_names_from_outside_are_escaped(study, tmp_path):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    study.repeats("tf", 1, [1, 2, 3], strategy=nasty, study="<b>id", hardware=nasty)
    study.cell("tf", rate=None, status="FAILED", study="<b>id", strategy=nasty)
    for run in list(study.runs):
        study.change(run, params=run.params | {"study": nasty})
    report = build_report(study.runs)
    assert report.study == nasty
    html, *_ = write_report(report, tmp_path)
    page = Page(html.read_text(encoding="utf-8"))
    assert "img" not in page.tags
    assert "<script>alert" not in html.read_text(encoding="utf-8")
    assert nasty in page.text


def test_failed_runs_are_shown(full_study, tmp_path):
    failed = full_study.cell("tf", workers=4, status="FAILED", rate=None)
    page = page_of(build_report(full_study.runs), tmp_path)
    assert "Runs that do not count (1)" in page.text
    assert failed.name in page.text
    assert failed.run_id in page.text


def test_partial_studies_make_a_page_too(new_study, tmp_path):
    some_failed, one_cell, only_pipeline, bare = (new_study() for _ in range(4))
    some_failed.cell("tf", status="FAILED", rate=None)
    some_failed.cell("tf", repeat=1)
    one_cell.cell("torch")
    only_pipeline.pipeline("tf", metrics={"eval_metrics": float("nan")})
    bare.change(run := bare.cell("tf"), metrics={"examples_per_second": 5.0})
    bare.change(pipeline := bare.pipeline("torch"), metrics={}, tags={"tandem.kind": "pipeline"})
    assert run.metrics != pipeline.metrics
    for study in (some_failed, one_cell, only_pipeline, bare):
        assert page_of(build_report(study.runs), tmp_path).text


def test_every_run_leads_to_mlflow(full_study, tmp_path):
    base = "http://127.0.0.1:5000/#/experiments/3/runs/"
    for run in list(full_study.runs):
        full_study.change(run, experiment_id="3")
    report = build_report(full_study.runs, run_address=lambda _: base)
    page = page_of(report, tmp_path)
    assert page.fetched == []
    assert all(link.startswith(base.removesuffix("/runs/")) for link in page.links)
    shown = [run_id for cell in report.cells for run_id in cell.mlflow_run_ids]
    shown += [run.mlflow_run_id for run in report.pipelines.values()]
    assert {f"{base}{run_id}" for run_id in shown} <= set(page.links)
    assert "while tandem ui serves it" in page.text


def test_the_verdict_that_the_comparison_rests_on_is_drawn(full_study, verdict, tmp_path):
    newest = [run.run_id for run in full_study.runs if run.kind == "parity"][-1]
    report = build_report(full_study.runs, read_parity={newest: verdict}.get)
    assert report.parity == [verdict]
    html, data, _ = write_report(report, tmp_path)
    page = Page(html.read_text(encoding="utf-8"))
    assert "How far their losses lie apart" in page.text
    assert 'id="chart-parity-differences-0"' in html.read_text(encoding="utf-8")
    assert Report.model_validate_json(data.read_text()) == report
    assert "How far" not in page_of(build_report(full_study.runs), tmp_path).text
