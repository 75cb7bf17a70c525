"""A study while it runs: a table of its cells that fills, and the time that is left."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

from rich.table import Table
from rich.text import Text

from pipelines.cell import Cell
from pipelines.cli.narrator import Narrator, Task
from pipelines.study import StudyListener

__all__ = ["StudyView", "duration"]

_MARKS = {
    "waiting": ("·", "dim"),
    "running": ("▸", "cyan"),
    "measured": ("●", "green"),
    "failed": ("✗", "red"),
}


class StudyView:
    """What is known of every cell so far; Rich prints it as a table."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self._task: Task | None = None
        self._cells: list[Cell] = []
        self._rates: dict[Cell, float] = {}
        self._seconds: dict[Cell, float] = {}
        self._failed: set[str] = set()
        """Titles of cells that were given up."""
        self._running: Cell | None = None
        self._share = 0.0
        """Of the running cell's steps, how many are done."""

    def listener(self, task: Task) -> StudyListener:
        """What tells this view of the study, whose bar is the task's."""
        self._task = task
        return StudyListener(
            on_progress=self._on_progress,
            on_note=self._narrator.say,
            on_planned=self._on_planned,
            on_measured=self._on_measured,
            on_failed=self._on_failed,
        )

    @property
    def seconds_left(self) -> float | None:
        """By what like cells have taken; None before any has ended."""
        left = [cell for cell in self._cells if self._state(cell) in ("waiting", "running")]
        guesses = [self._guess(cell) for cell in left]
        known = [guess for guess in guesses if guess is not None]
        if len(known) < len(left):
            return None
        begun = self._guess(self._running) if self._running in left and self._running else None
        return sum(known) - self._share * (begun or 0.0)

    def __rich__(self) -> Table:
        table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column("cell")
        table.add_column("repeats")
        for heading in ("examples/s, last", "median", "a run takes"):
            table.add_column(heading, justify="right")
        for title, cells in self._rows().items():
            rates = [self._rates[cell] for cell in cells if cell in self._rates]
            seconds = [self._seconds[cell] for cell in cells if cell in self._seconds]
            marks = Text()
            for cell in cells:
                marks.append(*_MARKS[self._state(cell)])
            table.add_row(
                title,
                marks,
                f"{rates[-1]:,.0f}" if rates else "",
                f"{median(rates):,.0f}" if rates else "",
                duration(fmean(seconds)) if seconds else "",
            )
        return table

    def _rows(self) -> dict[str, list[Cell]]:
        """Cells by title, in an order that does not follow the matrix's own."""
        rows: dict[str, list[Cell]] = {}
        for cell in sorted(
            self._cells,
            key=lambda cell: (cell.scaling, cell.workers, cell.framework, cell.strategy),
        ):
            rows.setdefault(cell.title, []).append(cell)
        return rows

    def _state(self, cell: Cell) -> str:
        if cell in self._rates:
            return "measured"
        if cell.title in self._failed:
            return "failed"
        return "running" if cell == self._running else "waiting"

    def _guess(self, cell: Cell) -> float | None:
        """The mean of its own kind's runs, else of ever less alike ones."""
        alike = (
            lambda other: other.title == cell.title,
            lambda other: (other.framework, other.workers) == (cell.framework, cell.workers),
            lambda other: other.framework == cell.framework,
            lambda other: True,
        )
        for is_alike in alike:
            taken = [seconds for other, seconds in self._seconds.items() if is_alike(other)]
            if taken:
                return fmean(taken)
        return None

    def _on_planned(
        self, cells: Sequence[Cell], measured: Mapping[Cell, Mapping[str, float]]
    ) -> None:
        self._cells = [*cells]
        for cell, metrics in measured.items():
            self._keep(cell, metrics)
        if measured:
            self._narrator.say(f"{len(measured)} of {len(cells)} cells were measured before")

    def _on_progress(self, cell: Cell, step: int, steps: int) -> None:
        self._running, self._share = cell, step / steps
        self._tell(f"step {step}/{steps}" if step else "starting")

    def _on_measured(self, cell: Cell, metrics: Mapping[str, float]) -> None:
        self._keep(cell, metrics)
        self._running, self._share = None, 0.0
        if not self._narrator.console.is_terminal:
            self._narrator.say(
                f"  {self._done}/{len(self._cells)} {cell.name}: {self._rates[cell]:,.0f} "
                f"examples/s{self._time_left}"
            )

    def _on_failed(self, cell: Cell) -> None:
        self._failed.add(cell.title)
        self._running = None

    def _keep(self, cell: Cell, metrics: Mapping[str, float]) -> None:
        self._rates[cell] = metrics["examples_per_second"]
        self._seconds[cell] = metrics["wall_seconds"]

    def _tell(self, state: str) -> None:
        assert self._task is not None and self._running is not None
        if self._running in self._rates:  # measured, and now its anatomy or recovery is
            said = f"a closer look at {self._running.title}, {state}"
            self._task.update(said, len(self._cells), len(self._cells))
            return
        self._task.update(
            f"{self._done + 1}/{len(self._cells)} {self._running.name}, {state}{self._time_left}",
            self._done + self._share,
            len(self._cells),
        )

    @property
    def _done(self) -> int:
        return sum(self._state(cell) in ("measured", "failed") for cell in self._cells)

    @property
    def _time_left(self) -> str:
        seconds = self.seconds_left
        return f", {duration(seconds)} left" if seconds else ""


def duration(seconds: float) -> str:
    """Such as ``40 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
