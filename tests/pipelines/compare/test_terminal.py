import io

import pytest
from rich.console import Console

from pipelines.compare import build_report, print_report


def printed(report, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_report(report, console)
    return console.file.getvalue()


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_row_of_the_matrix_fits_on_one_line(full_study, width):
    text = printed(build_report(full_study.runs), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    for needles in (("multi_worker_mirrored", "3,906", "3,760 to 4,013"), ("ddp", "88.0 %")):
        assert any(all(needle in line for needle in needles) for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_answers_come_first_and_notes_last(full_study, width):
    report = build_report(full_study.runs)
    text = flat(printed(report, width))
    places = [text.index(flat(finding.statement)) for finding in report.findings]
    places += [text.index("Training runs"), text.index("Pipelines"), text.index("- Speed figures")]
    assert places == sorted(places)


def test_nothing_is_cut_off_even_where_it_is_narrow(full_study):
    text = printed(build_report(full_study.runs), 50)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 50


def test_failed_runs_are_listed_with_their_ids(full_study):
    failed = full_study.cell("torch", workers=4, status="FAILED", rate=None)
    text = printed(build_report(full_study.runs), 80)
    assert "Runs that do not count (1)" in text
    assert failed.run_id in text


def test_brackets_in_names_are_not_markup(study):
    study.cell("tf", strategy="[red]odd[/red]", rate=5)
    study.cell("tf", strategy="[/]", status="FAILED", rate=None)
    text = printed(build_report(study.runs), 100)
    assert "[red]odd[/red]" in text
    assert "[/]" in text


def test_what_is_missing_is_left_out(study):
    study.cell("tf")
    text = printed(build_report(study.runs), 100)
    assert "Scaling efficiency" not in text
    assert "Pipelines" not in text
    assert "PyTorch / TensorFlow" not in text
