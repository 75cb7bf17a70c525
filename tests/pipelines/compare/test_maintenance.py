import json

import pytest

from pipelines.compare.html import render_html
from pipelines.compare.maintenance import maintenance_of, newest_ledgers
from pipelines.compare.maintenance_table import (
    TITLES,
    details_of,
    reasons_of,
    rows_of,
    twin_files,
)
from pipelines.compare.report import build_report
from pipelines.ledger.model import (
    Age,
    Bound,
    FileCode,
    GivenWarning,
    Image,
    Ledger,
    Resolution,
    Vulnerability,
)
from pipelines.metrics import METRICS


@pytest.fixture
def ledger() -> Ledger:
    """A side with something to tell under every heading."""
    failed = {"glibc": "2.28", "resolved": False, "reason": "no wheels <here>"}
    return Ledger(
        framework="tf",
        created="2026-01-03T00:00:00+00:00",
        networked="2026-01-02T00:00:00+00:00",
        metrics={},
        not_checked={},
        asked=["tfx"],
        files=[
            FileCode(file="recompute.py", lines=9, cyclomatic_complexity=2, role="work"),
            FileCode(file="runners.py", lines=100, cyclomatic_complexity=21, role="glue"),
        ],
        bounds=[
            Bound(by="a", of="b", specifier="<2", excluded="2.1"),
            Bound(by="a", of="c", specifier="<9"),
        ],
        built_from_source=["d"],
        resolutions=[
            Resolution(python="3.10", **failed),
            Resolution(python="3.11", **failed),
            Resolution(python="3.11", glibc="2.39", resolved=True),
        ],
        ages=[
            Age(package="e", version="1", newest="3", libyears=2.54, days_since_release=1),
            Age(
                package="f", direct=True, version="1", newest="1", libyears=0, days_since_release=9
            ),
        ],
        unknown_packages=["g"],
        vulnerabilities=[
            Vulnerability(package="h", version="1", id="X-1", fixed_in=["1.1"]),
            Vulnerability(package="h", version="1", id="X-2", fixed_in=[]),
        ],
        not_audited=["i"],
        warnings=[GivenWarning(category="FutureWarning", module="j", message="old")],
        image=Image(
            tag="tandem-tf:0.1.0",
            bytes=3_000_000_000,
            build_seconds=None,
            accelerator="cpu",
            revision="fedcba9876543210-modified",
            engine="20.10",
        ),
    )


def test_every_measure_of_the_table_has_a_row() -> None:
    assert list(TITLES) == [n for n, metric in METRICS.items() if metric.group == "maintenance"]


def test_a_measure_that_was_not_checked_is_no_zero_and_says_why() -> None:
    rows = rows_of(
        {
            "tf": {"libyears_behind": 60.71, "held_back_share": 0.1815, "install_bytes": 3e9},
            "torch": {
                "libyears_behind": 14.36,
                "known_vulnerabilities": 0,
                "image_bytes": 1.5 * 2**30,
                "image_build_seconds": 301.4,
            },
        },
        {
            "tf": {"known_vulnerabilities": "no service", "deprecation_warnings": "run it"},
            "torch": {"held_back_share": "no service", "deprecation_warnings": "run it"},
        },
    )

    assert {row.title: list(row.cells.values()) for row in rows} == {
        "Installed": ["2.8 GiB", "–"],
        "Container image": ["–", "1.5 GiB"],
        "Building that image": ["–", "301 s"],
        "Of these, exclude the newest release": ["18 %", "not checked"],
        "Behind the newest releases": ["60.7 libyears", "14.4 libyears"],
        "Known vulnerabilities": ["not checked", "0"],
        "Deprecation warnings in its tests": ["not checked", "not checked"],
    }
    assert reasons_of(rows) == [
        "Of these, exclude the newest release (PyTorch), Known vulnerabilities (TensorFlow): "
        "not checked: no service",
        "Deprecation warnings in its tests: not checked: run it",
    ]


def test_each_file_stands_beside_its_twin(ledger: Ledger) -> None:
    other = [FileCode(file="runners.py", lines=81, cyclomatic_complexity=16, role="glue")]

    rows = twin_files({"tf": ledger.files, "torch": other})

    assert [(row.file, row.role, row.lines, row.complexity) for row in rows] == [
        ("recompute.py", "work", {"tf": 9, "torch": None}, {"tf": 2, "torch": None}),
        ("runners.py", "glue", {"tf": 100, "torch": 81}, {"tf": 21, "torch": 16}),
    ]


def test_the_details_tell_what_figures_rest_on(ledger: Ledger) -> None:
    assert details_of(ledger) == {
        "Cannot be resolved for": ["glibc 2.28 (Python 3.10, 3.11): no wheels <here>"],
        "Without a wheel for Linux": ["d"],
        "Held back": ["b 2.1 by a (<2)"],
        "Last releases of what is asked for": ["f 1, 9 days ago"],
        "Farthest behind, in libyears": ["e 1, newest 3 (2.5)"],
        "Age not known": ["g"],
        "Known vulnerabilities": ["h 1: X-1, mended in 1.1", "h 1: X-2, not mended yet"],
        "Unknown to the advisory service": ["i"],
        "Container image": [
            "tandem-tf:0.1.0 for cpu, by Docker 20.10 at commit fedcba987654, files of which were "
            "modified"
        ],
        "Deprecation warnings": ["j: old"],
    }


def test_the_page_shows_both_sides_with_their_reasons_and_runs(full_study, ledger) -> None:
    runs = [full_study.ledger(framework, libyears_behind=1.5) for framework in ("tf", "torch")]
    reason = {"known_vulnerabilities": "the <service> does not answer"}
    for run in runs:
        full_study.change(
            run,
            tags=run.tags | {"tandem.not_checked": json.dumps(reason)},
            params=run.params | {"commit": "0123456789abcdef-dirty"},
        )
    details: dict[str, Ledger] = {run.run_id: ledger for run in runs}
    report = build_report(full_study.runs, read_ledger=details.get)

    page = render_html(report)
    section = page[page.index("<h2>Keeping each side</h2>") :]
    section = section[: section.index("</section>")]

    assert report.maintenance["tf"].libyears_behind == 1.5
    assert report.maintenance["tf"].known_vulnerabilities is None
    assert section.count("<td>1.5 libyears</td>") == 2
    assert "Known vulnerabilities: not checked: the &lt;service&gt; does not answer" in section
    assert section.count("0123456789ab-dirty") == 2
    assert section.count("<td>2026-01-02</td>") == 2
    assert section.count("<code>fedcba987654-modified</code>") == 2
    assert "no wheels &lt;here&gt;" in section
    assert all(run.run_id in section for run in runs)


@pytest.mark.parametrize("tag", ["", "not json", "[1]"])
def test_a_ledger_without_details_or_reasons_is_still_told(full_study, tag: str) -> None:
    run = full_study.ledger("tf")
    full_study.change(run, tags=run.tags | {"tandem.not_checked": tag})

    kept = maintenance_of(newest_ledgers(full_study.runs))["tf"]
    assert (kept.total_dependencies, kept.not_checked, kept.details) == (205, {}, None)
    assert "Keeping each side" in render_html(build_report(full_study.runs))
