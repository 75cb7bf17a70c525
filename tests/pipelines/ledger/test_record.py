import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import actions
from pipelines.cli.commands import app
from pipelines.cli.narrator import Narrator
from pipelines.compare.maintenance import maintenance_of, newest_ledgers
from pipelines.config import Config
from pipelines.ledger import record
from pipelines.ledger.commit import Commit
from pipelines.ledger.measure import NETWORKED, measure_here, without_network
from pipelines.ledger.model import Age, FileCode, Ledger
from pipelines.ledger.packages import Packages, packages_of
from pipelines.ledger.record import read_ledger
from pipelines.metrics import METRICS
from pipelines.tracking import read_runs
from pipelines.tracking.connection import connect

NAMES = [name for name, metric in METRICS.items() if metric.group == "maintenance"]
HERE = [name for name in NAMES if name not in NETWORKED]
BY_OTHER_COMMANDS = {"deprecation_warnings", "image_bytes", "image_build_seconds"}
FIRST = {"tf": 200.0, "torch": 70.0}


class Measured:
    """What is measured of both sides, which takes a minute and both environments."""

    def __init__(self) -> None:
        self.lines = {"tf": 1000.0, "torch": 900.0}
        self.versions = {"thing": "1.0"}
        self.commit: Commit | None = Commit("c0ffee", datetime(2026, 1, 2, tzinfo=UTC), 41)
        self.known_dag_lines: list[int | None] = []
        self.asked: list[str] = []

    def here(self, framework: str, packages: Packages, known: int | None) -> Ledger:
        self.known_dag_lines.append(known)
        metrics = {name: FIRST[framework] + place for place, name in enumerate(HERE)}
        return Ledger(
            framework=framework,
            created="2026-01-03T00:00:00+00:00",
            metrics=metrics | {"code_lines": self.lines[framework]},
            not_checked={},
            asked=["thing"],
            files=[FileCode(file="a.py", lines=3, cyclomatic_complexity=1, role="work")],
            bounds=[],
            dag_lines=600,
        )

    def network(self, ledger: Ledger, packages: Packages, tell: Callable[[str], None]) -> Ledger:
        self.asked.append(ledger.framework)
        tell("asking")
        found = {name: float(place) for place, name in enumerate(NETWORKED)}
        del found["known_vulnerabilities"]
        age = Age(package="thing", version="1.0", newest="2.0", libyears=2.0, days_since_release=9)
        return ledger.model_copy(
            update={
                "metrics": ledger.metrics | found,
                "not_checked": {"known_vulnerabilities": "no service"},
                "networked": "2026-01-03T00:01:00+00:00",
                "ages": [age],
            }
        )


@pytest.fixture
def config(load_quickstart: Callable[..., Config]) -> Config:
    return load_quickstart()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    made = Measured()
    monkeypatch.setattr(record, "measure_here", made.here)
    monkeypatch.setattr(record, "with_network", made.network)
    monkeypatch.setattr(record, "commit_of", lambda: made.commit)
    monkeypatch.setattr(
        record,
        "packages_of",
        lambda framework: Packages(("thing",), ("thing",), made.versions, (), frozenset(), 1),
    )
    monkeypatch.setattr(actions, "find_python", lambda framework: Path())
    return made


def test_both_sides_are_tracked_once_until_something_changes(
    config: Config, measured: Measured, capfd: pytest.CaptureFixture[str]
) -> None:
    ledgers = actions.ledger(config, Narrator())
    assert "TensorFlow 201 packages and 1,000 lines" in capfd.readouterr().err

    runs = read_runs(config)
    assert [(run.name, run.kind, run.status) for run in runs] == [
        ("tf ledger", "ledger", "FINISHED"),
        ("torch ledger", "ledger", "FINISHED"),
    ]
    assert {run.params["framework"]: run.metrics for run in runs} == {
        framework: each.metrics for framework, each in ledgers.items()
    }
    assert [each.mlflow_run_id for each in ledgers.values()] == [run.run_id for run in runs]

    actions.ledger(config, Narrator())
    assert len(read_runs(config)) == 2

    measured.lines["tf"] += 1
    actions.ledger(config, Narrator())
    assert [run.name for run in read_runs(config)[2:]] == ["tf ledger"]
    kept = maintenance_of(newest_ledgers(read_runs(config)))
    assert list(kept) == ["tf", "torch"]
    assert (kept["tf"].code_lines, kept["torch"].code_lines) == (1001, 900)

    measured.commit = None
    actions.ledger(config, Narrator())
    assert "commit" not in read_runs(config)[-1].params


def test_a_run_stands_at_its_commits_place_in_history(config: Config, measured: Measured) -> None:
    ledger = actions.ledger(config, Narrator())["tf"]

    run = read_runs(config)[0]
    assert run.params["commit"] == "c0ffee"
    assert run.params["commit_time"] == "2026-01-02T00:00:00+00:00"
    [point] = connect(config).get_metric_history(run.run_id, "code_lines")
    assert (point.step, point.timestamp / 1000) == (
        41,
        datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
    )
    assert json.loads(run.tags["tandem.not_checked"]) == {"known_vulnerabilities": "no service"}
    assert read_ledger(config, run.run_id) == ledger.model_copy(update={"mlflow_run_id": None})

    ledgers = newest_ledgers(read_runs(config))
    kept = maintenance_of(ledgers, lambda run_id: read_ledger(config, run_id))["tf"]
    assert kept.known_vulnerabilities is None
    assert kept.not_checked == {"known_vulnerabilities": "no service"}
    assert kept.details is not None
    assert kept.details.ages[0].libyears == 2.0


def test_what_the_network_said_is_kept_for_the_same_packages(
    config: Config, measured: Measured
) -> None:
    never = actions.ledger(config, Narrator(), network="kept")["tf"]
    assert never.not_checked == dict.fromkeys(
        NETWORKED, "needs the network, which `tandem ledger` asks"
    )
    assert measured.asked == []

    asked = actions.ledger(config, Narrator())["tf"]
    assert measured.asked == ["tf", "torch"]
    measured.lines["tf"] += 1
    kept = actions.ledger(config, Narrator(), network="kept")["tf"]
    assert measured.asked == ["tf", "torch"]
    assert kept.metrics == asked.metrics | {"code_lines": 1001}
    assert (kept.networked, kept.ages, kept.not_checked) == (
        asked.networked, asked.ages, asked.not_checked,
    )  # fmt: skip

    measured.versions = {"thing": "2.0"}
    assert "libyears_behind" in actions.ledger(config, Narrator(), network="kept")["tf"].not_checked


def test_offline_keeps_what_the_network_said_in_the_newest_ledger(
    config: Config, measured: Measured
) -> None:
    actions.ledger(config, Narrator())

    said = CliRunner().invoke(app, ["ledger", "--offline", "--set", f"output={config.output}"])

    assert said.exit_code == 0
    assert measured.asked == ["tf", "torch"]
    assert "2026-01-03" in next(
        line for line in said.stderr.splitlines() if "Network asked" in line
    )
    kept = maintenance_of(newest_ledgers(read_runs(config)))["tf"]
    assert kept.libyears_behind == NETWORKED.index("libyears_behind")


def test_the_newest_ledger_is_the_present_one_where_an_older_one_says_the_same(
    config: Config, measured: Measured
) -> None:
    for lines in (1000.0, 1001.0, 1000.0):
        measured.lines["tf"] = lines
        actions.ledger(config, Narrator())

    runs = read_runs(config)
    assert len(runs) == 4
    assert maintenance_of(newest_ledgers(runs))["tf"].code_lines == 1000


def test_a_dag_is_compiled_once_for_the_same_code_and_packages(
    config: Config, measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        actions.ledger(config, Narrator(), network="kept")
    assert measured.known_dag_lines == [None, None, 600, 600]

    monkeypatch.setattr(record, "code_digest", lambda: "other")
    actions.ledger(config, Narrator(), network="kept")
    assert measured.known_dag_lines[4:] == [None, None]


def test_the_command_prints_both_sides_and_gives_them_as_json(
    config: Config, measured: Measured
) -> None:
    options = ["--set", f"output={config.output}"]

    said = CliRunner().invoke(app, ["ledger", "--json", *options])

    assert said.exit_code == 0
    told = json.loads(said.stdout)
    assert told["torch"]["metrics"]["total_dependencies"] == 71
    assert "Known vulnerabilities: not checked: no service" in said.stderr
    assert "thing 1.0, newest 2.0 (2.0)" in said.stderr


@pytest.mark.both_frameworks
def test_each_side_is_measured_under_the_names_of_the_table() -> None:
    for framework in ("tf", "torch"):
        found = without_network(measure_here(framework, packages_of(framework), 600), "none here")
        assert [name for name in NAMES if name in found.metrics] == list(found.metrics)
        assert {*found.metrics, *found.not_checked} == set(NAMES)
        assert set(found.not_checked) - BY_OTHER_COMMANDS == set(NETWORKED)
        assert all(found.metrics[name] > 0 for name in HERE if name in found.metrics)
