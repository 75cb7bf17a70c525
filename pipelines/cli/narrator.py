"""What a person sees while a command works: what runs now, how far it is, how long it took.

Everything goes to standard error, so that ``--json`` leaves standard output to the machine. On a
terminal a bar moves; elsewhere (a log file, CI) each task has a line when it begins and ends.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

__all__ = ["Narrator", "Task"]

_TITLE_WIDTH = 16


class Task:
    """A task that is under way."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._id = progress.add_task(f"{title:<{_TITLE_WIDTH}}", total=None, detail="")
        self.outcome = ""
        """What the closing line says of the result."""
        self.refuted = False
        """Whether the work was done and its result is a bad one."""

    def update(
        self, detail: str, completed: float | None = None, total: float | None = None
    ) -> None:
        """Say where the task is."""
        self._progress.update(self._id, detail=detail, completed=completed, total=total)


class Narrator:
    """Tells a command's story, one task after the other."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)

    @contextmanager
    def task(self, title: str, view: RenderableType = "") -> Iterator[Task]:
        """Show a task while the block runs, under a ``view``, and leave one line of it behind."""
        live = self.console.is_terminal
        if not live:
            self.console.print(f"  {title} ...")
        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim"),
            console=self.console,
        )
        shown = Group(*([view] if view else []), progress)
        started = time.perf_counter()
        try:
            with Live(shown, console=self.console, transient=True) if live else nullcontext():
                task = Task(progress, title)
                yield task
        except BaseException:
            self._close("✗", "red", title, "failed", started)
            raise
        mark, style = ("✗", "red") if task.refuted else ("✓", "green")
        self._close(mark, style, title, task.outcome, started)

    def say(self, text: str) -> None:
        """A line between tasks."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _close(self, mark: str, style: str, title: str, outcome: str, started: float) -> None:
        seconds = f"{time.perf_counter() - started:7.1f} s"
        line = Text.assemble((mark, style), f" {title:<{_TITLE_WIDTH}}", (seconds, "cyan"))
        line.append(f"   {outcome}")
        self.console.print(line, soft_wrap=True)
