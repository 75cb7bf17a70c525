import os
import signal
from collections.abc import Callable
from itertools import pairwise

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.errors import PreemptedError, WorkError
from pipelines.ingest import Dataset
from pipelines.study import plan, run_study
from pipelines.training_run import Listener

STUDY = "20250601T120000Z"

Write = Callable[..., None]


@pytest.mark.parametrize("repeats", [1, 2, 5])
@pytest.mark.parametrize("workers", [[1], [1, 2], [4, 1, 2]])
def test_every_cell_of_the_matrix_is_planned_exactly_once(
    load_quickstart: Callable[..., Config], workers: list[int], repeats: int
) -> None:
    config = load_quickstart(f"study.workers={workers}", f"study.repeats={repeats}")

    cells = list(plan(config))

    assert len(cells) == 2 * len(workers) * repeats
    assert set(cells) == {
        Cell(framework, strategy, count, "weak", repeat)
        for framework, strategy in (("tf", "multi_worker_mirrored"), ("torch", "ddp"))
        for count in workers
        for repeat in range(repeats)
    }
    assert len({cell.slug for cell in cells}) == len(cells)


def test_the_plan_takes_each_frameworks_strategy_from_the_config(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart("study.workers=[1]", "tf.strategy=one_device", "torch.strategy=single")

    assert {(cell.framework, cell.strategy) for cell in plan(config)} == {
        ("tf", "one_device"),
        ("torch", "single"),
    }


@pytest.mark.parametrize("workers", [[1], [1, 2], [1, 2, 4]])
def test_frameworks_alternate_and_so_does_who_goes_first(
    load_quickstart: Callable[..., Config], workers: list[int]
) -> None:
    cells = list(plan(load_quickstart(f"study.workers={workers}", "study.repeats=4")))
    pairs = list(zip(cells[::2], cells[1::2], strict=True))

    for first, second in pairs:
        assert {first.framework, second.framework} == {"tf", "torch"}
        assert (first.workers, first.repeat) == (second.workers, second.repeat)
    for count in workers:
        leaders = [first.framework for first, _ in pairs if first.workers == count]
        assert leaders[0::2] == [leaders[0]] * 2
        assert leaders[1::2] == [leaders[1]] * 2
        assert leaders[0] != leaders[1]
    for repeat in range(4):
        leaders = [first.framework for first, _ in pairs if first.repeat == repeat]
        assert all(one != other for one, other in pairwise(leaders))


def test_all_worker_counts_are_measured_before_any_is_repeated(
    load_quickstart: Callable[..., Config],
) -> None:
    cells = list(plan(load_quickstart("study.workers=[1, 2]", "study.repeats=3")))

    assert [cell.repeat for cell in cells] == [0] * 4 + [1] * 4 + [2] * 4


def test_a_study_measures_every_cell_of_its_plan_in_order(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()")
    steps: list[tuple[Cell, int, int]] = []

    run_ids = run_study(config, digits, STUDY, Listener(lambda *said: steps.append(said)))

    cells = list(plan(config))
    runs = tracking.read_runs(config)
    assert [run.run_id for run in runs] == run_ids
    assert [run.name for run in runs] == [cell.name for cell in cells]
    assert [cell for cell, _, _ in steps] == cells
    assert {run.kind for run in runs} == {"cell"}
    folder = config.output / "studies" / STUDY
    assert {path.name for path in folder.iterdir()} == {cell.slug for cell in cells}


def test_a_failed_cell_ends_the_study_and_what_was_measured_stays(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()", "tf")
    write_worker("sys.exit(3)", "torch")

    with pytest.raises(WorkError, match="exit code 3"):
        run_study(config, digits, STUDY, Listener())

    first, second = tracking.read_runs(config)
    assert (first.params["framework"], second.params["framework"]) == ("tf", "torch")
    assert first.metrics["wall_seconds"] > 0
    assert second.status == "FAILED"


def test_a_cell_that_was_asked_to_end_ends_the_study(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()", "tf")
    write_worker("emit(event='preempted', step=6)", "torch")

    with pytest.raises(
        WorkError, match=r"was asked to end, and saved after step 6.* ends with it"
    ) as raised:
        run_study(config, digits, STUDY, Listener())

    assert not isinstance(raised.value, PreemptedError)
    assert raised.value.exit_code == 1
    assert len(tracking.read_runs(config)) == 2


def test_a_study_that_is_asked_to_end_while_a_cell_is_ending_measures_no_further_one(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker(
        "signal.signal(signal.SIGTERM, lambda *_: finish())\n"
        "emit(event='step', step=12, steps=12)\n"
        "while not (output / 'result.json').exists():\n"
        "    time.sleep(0.01)\n"
    )

    def ask_to_end(cell: Cell, step: int, steps: int) -> None:
        if step == steps and (cell.framework, cell.repeat) == ("tf", 0):
            os.kill(os.getpid(), signal.SIGTERM)
        elif step == steps:
            raise KeyboardInterrupt  # or the worker would wait for ever

    # As the command has it; a caller of the library may do otherwise.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises((WorkError, KeyboardInterrupt)):
            run_study(config, digits, STUDY, Listener(ask_to_end))
    finally:
        signal.signal(signal.SIGTERM, before)

    assert [run.params["framework"] for run in tracking.read_runs(config)] == ["tf"]


def test_what_a_cells_workers_say_of_it_reaches_the_listener(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=1")
    write_worker("emit(event='note', text='step 4 could not be saved'); finish()", "tf")
    write_worker("finish()", "torch")
    notes: list[str] = []

    run_study(config, digits, STUDY, Listener(on_note=notes.append))

    assert notes == ["step 4 could not be saved"]
