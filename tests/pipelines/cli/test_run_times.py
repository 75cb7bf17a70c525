import pytest

from pipelines.cli.narrator import Narrator
from pipelines.cli.run_times import tell_run_times
from pipelines.kubeflow_times import run_times
from tests.pipelines.kubeflow_documents import OWN, quickstart, run, task


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_is_one_line_for_each_task(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    tell_run_times(run_times(quickstart()), "", Narrator())

    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "",
        "What each task took, in seconds",
        "task       seconds  start-up  pods  pull  cached",
        "validate        25        17     2     –  no",
        "transform        5         –     1     –  yes",
        "train           66        36     2     –  no",
        "",
        "The whole run took 100 s, in 62 s of which no component's container ran; 6 pods.",
        "",
    ]


def test_an_overhead_that_nothing_tells_is_not_made_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = run_times(run(task("a", 1, 10, 50, 2), task("executor", 2, 10, 50, kind=OWN)))

    tell_run_times(times, "", Narrator())

    said = " ".join(capsys.readouterr().err.split())
    assert "took 100 s, how long of that no component's container ran is not known" in said
