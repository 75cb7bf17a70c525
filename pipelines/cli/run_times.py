"""What a run on Kubeflow took, on a terminal."""

from rich.table import Table
from rich.text import Text

from pipelines.cli.narrator import Narrator
from pipelines.compare.formats import UNKNOWN, yes_no
from pipelines.compare.terminal import table_of
from pipelines.kubeflow_times import RunTimes

__all__ = ["tell_run_times"]


def tell_run_times(times: RunTimes, note: str, narrator: Narrator) -> None:
    """A row for every task, a line for the whole, and the note if there is one."""
    console = narrator.console
    console.print()
    console.print(_table(times))
    console.print()
    narrator.say(_whole(times))
    if note:
        narrator.say(note)
    console.print()


def _table(times: RunTimes) -> Table:
    columns = ("<task", "seconds", "start-up", "pods", "pull", "<cached")
    table = table_of("What each task took, in seconds", *columns)
    for name, task in times.tasks.items():
        table.add_row(
            Text(name),
            _seconds(task.seconds),
            _seconds(task.startup_seconds),
            str(task.pods),
            _seconds(task.pull_seconds),
            yes_no(task.cached),
        )
    return table


def _whole(times: RunTimes) -> str:
    overhead = (
        "how long of that no component's container ran is not known"
        if times.overhead_seconds is None
        else f"in {_seconds(times.overhead_seconds)} s of which no component's container ran"
    )
    return f"The whole run took {_seconds(times.seconds)} s, {overhead}; {times.pods} pods."


def _seconds(value: float | None) -> str:
    """Whole ones, which is what Kubeflow keeps."""
    return UNKNOWN if value is None else f"{value:,.0f}"
