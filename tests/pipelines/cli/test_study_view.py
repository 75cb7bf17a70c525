import io
from collections.abc import Callable
from itertools import pairwise

import pytest
from rich.console import Console
from rich.progress import Progress

from pipelines.cell import Cell
from pipelines.cli.narrator import Narrator, Task
from pipelines.cli.study_view import StudyView, duration
from pipelines.config import Config
from pipelines.study import StudyListener, plan


@pytest.fixture
def narrator() -> Narrator:
    narrator = Narrator()
    narrator.console = Console(file=io.StringIO(), width=100)
    return narrator


@pytest.fixture
def cells(load_quickstart: Callable[..., Config]) -> list[Cell]:
    return [*plan(load_quickstart("study.workers=[1, 2]", "study.repeats=2"))]


def watch(narrator: Narrator) -> tuple[StudyView, StudyListener, Progress]:
    view, progress = StudyView(narrator), Progress()
    return view, view.listener(Task(progress, "study")), progress


def rows_of(view: StudyView) -> dict[str, list[str]]:
    console = Console(file=io.StringIO(), width=100)
    console.print(view)
    lines = console.file.getvalue().splitlines()[1:]  # type: ignore[attr-defined]
    return {" ".join(line.split()[:3]): line.split()[3:] for line in lines}


def took(seconds: float, rate: float = 1000.0) -> dict[str, float]:
    return {"wall_seconds": seconds, "examples_per_second": rate}


def test_every_kind_of_cell_has_a_row_that_fills(narrator: Narrator, cells: list[Cell]) -> None:
    view, listener, _ = watch(narrator)
    listener.on_planned(cells, {})
    assert rows_of(view) == {
        "tf multi_worker_mirrored x1": ["··"],
        "torch ddp x1": ["··"],
        "tf multi_worker_mirrored x2": ["··"],
        "torch ddp x2": ["··"],
    }

    ddp = [cell for cell in cells if cell.title == "torch ddp x2"]
    listener.on_progress(ddp[0], 0, 300)
    assert rows_of(view)["torch ddp x2"] == ["▸·"]
    listener.on_measured(ddp[0], took(20, 5000))
    listener.on_measured(ddp[1], took(30, 6000))
    assert rows_of(view)["torch ddp x2"] == ["●●", "6,000", "5,500", "25", "s"]

    (first, *_) = [cell for cell in cells if cell.title == "torch ddp x1"]
    listener.on_failed(first)
    assert rows_of(view)["torch ddp x1"] == ["✗✗"]


def test_the_time_left_goes_by_like_cells(narrator: Narrator, cells: list[Cell]) -> None:
    view, listener, _ = watch(narrator)
    listener.on_planned(cells, {})
    assert view.seconds_left is None

    of = {(cell.framework, cell.workers, cell.repeat): cell for cell in cells}
    listener.on_measured(of["tf", 1, 0], took(10))
    assert view.seconds_left == 70  # nothing else is known of the other seven
    listener.on_measured(of["torch", 1, 0], took(4))
    # tf: one at 1 worker, two at 2; torch: the same.
    assert view.seconds_left == 3 * 10 + 3 * 4
    listener.on_measured(of["torch", 2, 0], took(6))
    assert view.seconds_left == 3 * 10 + 4 + 6
    listener.on_progress(of["torch", 2, 1], 150, 300)
    assert view.seconds_left == 3 * 10 + 4 + 6 / 2


def test_the_bar_moves_with_the_steps_of_each_cell(narrator: Narrator, cells: list[Cell]) -> None:
    _, listener, progress = watch(narrator)
    listener.on_planned(cells, {})
    completed = []
    for cell in cells[:2]:
        listener.on_progress(cell, 0, 300)
        listener.on_progress(cell, 150, 300)
        completed.append(progress.tasks[0].completed)
        listener.on_measured(cell, took(10))

    assert completed == [0.5, 1.5]
    assert all(one < other for one, other in pairwise(completed))
    assert progress.tasks[0].total == 8
    assert progress.tasks[0].fields["detail"].startswith("2/8 ")


def test_a_cell_that_is_looked_into_is_not_one_more_cell(
    narrator: Narrator, cells: list[Cell]
) -> None:
    _, listener, progress = watch(narrator)
    listener.on_planned(cells, {cell: took(10) for cell in cells})

    listener.on_progress(cells[0], 150, 300)

    said = progress.tasks[0].fields["detail"]
    assert said == f"a closer look at {cells[0].title}, step 150/300"
    assert progress.tasks[0].completed == progress.tasks[0].total == 8


def test_a_log_has_a_line_for_every_cell_that_ends(narrator: Narrator, cells: list[Cell]) -> None:
    _, listener, _ = watch(narrator)
    listener.on_planned(cells, {cells[0]: took(30)})
    listener.on_measured(cells[1], took(30, 4321))

    assert narrator.console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "1 of 8 cells were measured before",
        f"  2/8 {cells[1].name}: 4,321 examples/s, 3 min left",
    ]


def test_durations_are_as_coarse_as_they_are_long() -> None:
    assert [duration(seconds) for seconds in (4.2, 89, 100, 3540, 12_000)] == [
        "4 s", "89 s", "2 min", "59 min", "3 h 20 min",
    ]  # fmt: skip
