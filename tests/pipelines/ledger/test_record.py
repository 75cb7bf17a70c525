from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import actions
from pipelines.cli.narrator import Narrator
from pipelines.compare.maintenance import maintenance_of
from pipelines.config import Config
from pipelines.ledger import record
from pipelines.metrics import METRICS
from pipelines.tracking import read_runs

NAMES = [name for name, metric in METRICS.items() if metric.group == "maintenance"]


@pytest.fixture
def config(load_quickstart: Callable[..., Config]) -> Config:
    return load_quickstart()


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, float]]:
    """What is measured of each side, which takes seconds and both environments."""
    made = {
        framework: {name: first + place for place, name in enumerate(NAMES)}
        for framework, first in (("tf", 200.0), ("torch", 70.0))
    }
    monkeypatch.setattr(record, "measure", lambda framework: made[framework])
    monkeypatch.setattr(actions, "find_python", lambda framework: Path())
    return made


def test_both_sides_are_tracked_once_until_something_changes(
    config: Config, entries: dict[str, dict[str, float]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert actions.ledger(config, Narrator()) == entries
    assert "TensorFlow 201 packages and 203 lines" in capfd.readouterr().err

    runs = read_runs(config)
    assert [(run.name, run.kind, run.status) for run in runs] == [
        ("tf ledger", "ledger", "FINISHED"),
        ("torch ledger", "ledger", "FINISHED"),
    ]
    assert {run.params["framework"]: run.metrics for run in runs} == entries

    actions.ledger(config, Narrator())
    assert len(read_runs(config)) == 2

    entries["tf"]["code_lines"] += 1
    actions.ledger(config, Narrator())
    assert [run.name for run in read_runs(config)[2:]] == ["tf ledger"]
    kept = maintenance_of(read_runs(config))
    assert list(kept) == ["tf", "torch"]
    assert (kept["tf"].code_lines, kept["torch"].code_lines) == (204, 73)


@pytest.mark.both_frameworks
def test_each_side_is_measured_under_the_names_of_the_table() -> None:
    for framework in ("tf", "torch"):
        found = record.measure(framework)
        assert list(found) == NAMES
        assert all(value > 0 for value in found.values())
