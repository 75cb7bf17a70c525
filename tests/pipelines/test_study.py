import os
import signal
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from pipelines import cell as cell_module
from pipelines import study, study_folder, tracking
from pipelines.cell import Cell, cell_config
from pipelines.config import Config, parse_config
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.ingest import Dataset
from pipelines.parity import software
from pipelines.runs import ATTEMPT_TAG, PREEMPTED_TAG
from pipelines.study import StudyListener, plan, run_study
from pipelines.study_folder import StudyFolder

STUDY = "20250601T120000Z"

Write = Callable[..., None]


@pytest.fixture
def configure(configure: Callable[..., Config]) -> Callable[..., Config]:
    """The cells alone, unless a test asks for what is measured beside them."""
    alone = ("study.anatomy=false", "study.recovery=false")
    return lambda *overrides: configure(*alone, *overrides)


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


def test_each_repeat_goes_through_the_places_in_an_order_of_its_own(
    load_quickstart: Callable[..., Config],
) -> None:
    matrix = ("study.workers=[1, 2, 4]", "study.scaling=[weak, strong]", "study.repeats=6")
    places = [(cell.repeat, cell.scaling, cell.workers) for cell in plan(load_quickstart(*matrix))]
    orders = [
        [place[1:] for place, _ in groupby(places) if place[0] == repeat] for repeat in range(6)
    ]

    assert all(len(order) == len(set(order)) == 6 for order in orders)
    assert len({tuple(order) for order in orders}) > 3
    again = plan(load_quickstart(*matrix))
    assert [(cell.repeat, cell.scaling, cell.workers) for cell in again] == places
    other = plan(load_quickstart(*matrix, "study.order_seed=1"))
    assert [(cell.repeat, cell.scaling, cell.workers) for cell in other] != places


def test_several_strategies_take_turns_and_the_turns_are_turned_round(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart(
        "study.workers=[2]",
        "study.repeats=2",
        "study.strategies.tf=[multi_worker_mirrored]",
        "study.strategies.torch=[ddp, fsdp]",
    )
    strategies = [cell.strategy for cell in plan(config)]

    assert strategies == [
        *("multi_worker_mirrored", "ddp", "fsdp"),
        *("fsdp", "ddp", "multi_worker_mirrored"),
    ]


def test_a_cell_of_strong_scaling_has_its_share_of_the_global_batch(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart(
        "study.workers=[1, 2, 4]",
        "study.scaling=[weak, strong]",
        "study.global_batch_size=128",
        "study.strategies.torch=[fsdp]",
    )
    batches = {}
    for cell in plan(config):
        own = cell_config(config, cell)
        assert cell_config(own, cell) == own
        assert parse_config(own.model_dump(mode="json"), "its own") == own
        assert own.strategy(cell.framework) == cell.strategy
        batches[cell.scaling, cell.workers] = (
            own.training.batch_size_per_worker,
            own.global_batch_size(cell.workers),
        )

    assert batches == {
        ("weak", 1): (16, 16), ("weak", 2): (16, 32), ("weak", 4): (16, 64),
        ("strong", 1): (128, 128), ("strong", 2): (64, 128), ("strong", 4): (32, 128),
    }  # fmt: skip


def test_strong_scaling_shares_out_the_base_cases_batch_by_default(
    load_quickstart: Callable[..., Config],
) -> None:
    assert load_quickstart("study.scaling=[strong]").strong_batch_size == 16
    assert load_quickstart("study.scaling=[strong]", "study.workers=[2,4]").strong_batch_size == 32


def test_a_global_batch_that_cannot_be_shared_is_refused(
    load_quickstart: Callable[..., Config],
) -> None:
    with pytest.raises(InputError, match=r"study.global_batch_size: 3 workers cannot share 16 exa"):
        load_quickstart("study.scaling=[strong]", "study.workers=[1,3]")


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

    run_ids = run_study(config, digits, STUDY, StudyListener(lambda *said: steps.append(said)))

    cells = list(plan(config))
    runs = tracking.read_runs(config)
    assert [run.run_id for run in runs] == run_ids
    assert [run.name for run in runs] == [cell.name for cell in cells]
    assert [cell for cell, _, _ in steps] == cells
    assert {run.kind for run in runs} == {"cell"}
    folder = config.output / "studies" / STUDY
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        cell.slug for cell in cells
    }


def test_a_cell_that_fails_is_tried_once_more_and_both_runs_are_kept(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=1")
    write_worker("finish()", "tf")
    write_worker("finish() if 'attempt2' in output.name else sys.exit(3)", "torch")
    notes: list[str] = []

    run_ids = run_study(config, digits, STUDY, StudyListener(on_note=notes.append))

    (note,) = notes
    assert note.startswith("torch ddp x1 #1 failed, and is tried once more: ")
    assert "exit code 3" in note
    runs = {
        (run.params["framework"], run.tags.get(ATTEMPT_TAG)): run
        for run in tracking.read_runs(config)
    }
    assert {key: run.status for key, run in runs.items()} == {
        ("tf", None): "FINISHED",
        ("torch", None): "FAILED",
        ("torch", "2"): "FINISHED",
    }
    assert set(run_ids) == {runs["tf", None].run_id, runs["torch", "2"].run_id}


def test_a_cell_that_fails_twice_is_given_up_and_the_others_are_measured(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()", "tf")
    write_worker("sys.exit(3)", "torch")
    failed: list[Cell] = []

    with pytest.raises(WorkError, match=r"torch ddp x1: .*exit code 3.*--resume") as raised:
        run_study(config, digits, STUDY, StudyListener(on_failed=failed.append))

    assert str(raised.value).count("exit code 3") == 1
    assert [cell.title for cell in failed] == ["torch ddp x1"]
    ended = [(run.params["framework"], run.status) for run in tracking.read_runs(config)]
    assert sorted(ended) == [("tf", "FINISHED")] * 2 + [("torch", "FAILED")] * 2


def test_a_study_that_was_cut_off_goes_on_with_what_is_not_measured(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("emit(event='step', step=1, steps=12); finish()")
    begun: list[Cell] = []

    def interrupt(cell: Cell, step: int, steps: int) -> None:
        if step and cell not in begun:
            begun.append(cell)
        if len(begun) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(config, digits, STUDY, StudyListener(interrupt))
    folder = StudyFolder.path(config, STUDY)
    loaded, study_id = StudyFolder.to_resume(folder, [])
    assert (loaded.digest(), study_id) == (config.digest(), STUDY)
    measured: list[Cell] = []
    before: list[Cell] = []
    run_ids = run_study(
        loaded,
        digits,
        study_id,
        StudyListener(
            on_planned=lambda cells, known: before.extend(
                cell for cell, metrics in known.items() if metrics["wall_seconds"] > 0
            ),
            on_measured=lambda cell, metrics: measured.append(cell),
        ),
    )

    cells = list(plan(config))
    assert before == cells[:2]
    assert measured == cells[2:]
    ended = [(run.name, run.status) for run in tracking.read_runs(config)]
    assert ended == [
        *((cell.name, "FINISHED") for cell in cells[:2]),
        (cells[2].name, "KILLED"),
        *((cell.name, "FINISHED") for cell in cells[2:]),
    ]
    assert len(set(run_ids)) == 4


def test_each_kind_of_cell_is_taken_apart_once(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.anatomy=true", "study.workers=[1]", "study.repeats=2")
    write_worker("finish()")

    run_ids = run_study(config, digits, STUDY, StudyListener())
    assert run_study(config, digits, STUDY, StudyListener()) == run_ids  # nothing is left to do

    runs = tracking.read_runs(config)
    assert [run.kind for run in runs] == ["cell"] * 4 + ["anatomy"] * 2
    assert {run.name for run in runs if run.kind == "anatomy"} == {
        "tf multi_worker_mirrored x1 anatomy",
        "torch ddp x1 anatomy",
    }
    assert {run.run_id for run in runs if run.kind == "cell"} == set(run_ids)


def test_a_cell_that_cannot_be_taken_apart_fails_the_study_at_its_end(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.anatomy=true", "study.workers=[1]", "study.repeats=1")
    write_worker("finish()", "tf")
    write_worker("sys.exit(3) if '--anatomy' in arguments else finish()", "torch")

    with pytest.raises(WorkError, match=r"torch ddp x1 anatomy: .*exit code 3"):
        run_study(config, digits, STUDY, StudyListener())

    statuses = [
        (run.kind, run.params["framework"], run.status) for run in tracking.read_runs(config)
    ]
    assert statuses.count(("anatomy", "torch", "FAILED")) == 2
    assert statuses.count(("cell", "torch", "FINISHED")) == 1


RECOVERS = """
if "-recovery" not in str(output):
    finish()
    sys.exit()
checkpoints = output / "checkpoints"
if attempt == 1:
    for step in (2, 4):
        (checkpoints / f"step-{step:06d}").mkdir(parents=True)
        emit(event="step", step=step + 1, steps=12)
        time.sleep(0.1)
    time.sleep(60)
emit(event="resumed", step=4)
emit(event="step", step=5, steps=12)
finish()
"""


def test_a_worker_of_each_framework_is_killed_once_and_the_run_goes_on(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.recovery=true", "study.workers=[1]", "study.repeats=1")
    write_worker(RECOVERS)

    run_ids = run_study(config, digits, STUDY, StudyListener())
    assert run_study(config, digits, STUDY, StudyListener()) == run_ids  # nothing is left to do

    runs = tracking.read_runs(config)
    assert [run.kind for run in runs] == ["cell"] * 2 + ["recovery"] * 2
    assert {run.name for run in runs if run.kind == "recovery"} == {
        "tf multi_worker_mirrored x1 recovery",
        "torch ddp x1 recovery",
    }


def test_a_worker_that_could_not_be_killed_fails_the_study_at_its_end(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.recovery=true", "study.workers=[1]", "study.repeats=1")
    write_worker(RECOVERS, "tf")
    write_worker("finish()", "torch")

    with pytest.raises(WorkError, match=r"torch ddp x1 recovery: .*before it had ended"):
        run_study(config, digits, STUDY, StudyListener())

    kinds = [(run.kind, run.params["framework"]) for run in tracking.read_runs(config)]
    assert kinds.count(("cell", "torch")) == kinds.count(("recovery", "tf")) == 1
    assert kinds.count(("recovery", "torch")) == 2  # it is tried once more


def test_a_strategy_whose_workers_must_not_be_killed_is_passed_over(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure(
        "study.recovery=true", "tf.strategy=tpu", "study.workers=[1]", "study.repeats=1"
    )
    write_worker("finish()", "tf")
    write_worker(RECOVERS, "torch")
    notes: list[str] = []

    run_study(config, digits, STUDY, StudyListener(on_note=notes.append))

    assert notes[0] == "no recovery is measured of tf tpu x1"
    kinds = [(run.kind, run.params["framework"]) for run in tracking.read_runs(config)]
    assert ("recovery", "tf") not in kinds
    assert ("recovery", "torch") in kinds


def test_a_cell_that_was_gone_on_with_by_itself_is_measured_again(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=1")
    write_worker("finish()")
    first, second = run_study(config, digits, STUDY, StudyListener())
    tracking.log_metrics(config, first, {}, {PREEMPTED_TAG: "6"})

    again = run_study(config, digits, STUDY, StudyListener())

    assert first not in again
    assert second in again
    assert len(tracking.read_runs(config)) == 3


def test_a_study_goes_on_only_with_what_it_was_begun_with(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    write_worker("finish()")
    run_study(configure("study.workers=[1]", "study.repeats=1"), digits, STUDY, StudyListener())

    with pytest.raises(InputError, match=r"precision is bfloat16 now, and was float32 in"):
        run_study(
            configure("study.workers=[1]", "training.precision=bfloat16"),
            digits,
            STUDY,
            StudyListener(),
        )


def test_a_study_goes_on_only_with_the_code_that_it_was_begun_with(
    write_worker: Write,
    configure: Callable[..., Config],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_worker("finish()")
    config = configure("study.workers=[1]", "study.repeats=1")
    run_study(config, digits, STUDY, StudyListener())
    begun_with = software.code_digest()
    monkeypatch.setattr(cell_module, "running_code", lambda: "ef56" * 16)

    with pytest.raises(InputError) as raised:
        run_study(config, digits, STUDY, StudyListener())

    said = f"code_sha256 is ef56ef56ef56.. now, and was {begun_with[:12]}.. in "
    assert said in str(raised.value)


def test_a_study_whose_code_changes_meanwhile_measures_no_further_cell(
    write_worker: Write,
    configure: Callable[..., Config],
    digits: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_worker("finish()")
    config = configure("study.workers=[1]", "study.repeats=1")

    def edit(cell: Cell, metrics: object) -> None:
        monkeypatch.setattr(study, "code_digest", lambda: "ef56" * 16)

    with pytest.raises(WorkError, match=r"the source code was changed .*--resume"):
        run_study(config, digits, STUDY, StudyListener(on_measured=edit))

    assert len(tracking.read_runs(config)) == 1


def test_studies_that_begin_in_one_second_have_ids_and_folders_of_their_own(
    configure: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(["20250601T120000Z"] * 3 + ["20250601T120001Z"])
    monkeypatch.setattr(tracking, "new_study_id", lambda: next(seconds))
    monkeypatch.setattr(study_folder, "_SECONDS_TO_THE_NEXT_ID", 0)
    config = configure()

    ids = [StudyFolder.new_id(config) for _ in range(2)]

    assert ids == ["20250601T120000Z", "20250601T120001Z"]
    assert [StudyFolder.begin(config, each)[1] for each in ids] == [False, False]


def test_a_study_is_not_gone_on_with_beside_the_process_that_measures_it(
    configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=1")
    tracking.prepare_store(config)
    with (
        held_alone(StudyFolder.path(config, STUDY), "give up"),
        pytest.raises(InputError, match="another process is working there; wait for it"),
    ):
        run_study(config, digits, STUDY, StudyListener())

    assert tracking.read_runs(config) == []


def test_a_study_goes_on_where_it_was_begun(
    configure: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, begun_before = StudyFolder.begin(configure("output=out"), STUDY)
    assert not begun_before
    assert StudyFolder.to_resume(Path("out/studies") / STUDY, [])[1] == STUDY
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    with pytest.raises(InputError, match=r"the study writes to out, .*--set output=FOLDER"):
        StudyFolder.to_resume(tmp_path / folder, [])
    loaded, _ = StudyFolder.to_resume(tmp_path / folder, [f"output={tmp_path / 'out'}"])
    assert loaded.output == tmp_path / "out"


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no study there; .*study.json"):
        StudyFolder.to_resume(tmp_path, [])


def test_a_cell_that_was_asked_to_end_ends_the_study(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()", "tf")
    write_worker("emit(event='preempted', step=6)", "torch")

    with pytest.raises(WorkError, match=r"asked to end in torch ddp x1 #.*--resume") as raised:
        run_study(config, digits, STUDY, StudyListener())

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
            run_study(config, digits, STUDY, StudyListener(ask_to_end))
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

    run_study(config, digits, STUDY, StudyListener(on_note=notes.append))

    assert notes == ["step 4 could not be saved"]
