import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config, load_config
from pipelines.errors import DivergedError, InputError, PreemptedError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.ingest import Dataset
from pipelines.run_folder import RunFolder
from pipelines.runs import PREEMPTED_TAG, STUDY_TAG
from pipelines.study_folder import StudyFolder
from pipelines.training_run import Listener, begin_run, resume_run

STUDY = "20250601T120000Z"
TORCH = Cell("torch", "ddp", 1)
TWO = Cell("torch", "ddp", 2)

REPORTS = """
(output / "report.json").write_text(json.dumps({"arguments": sys.argv[1:], **os.environ}))
finish()
"""
WAITS_TO_BE_ASKED = """
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
(output / f"ready{rank}").touch()
if rank == 0:
    while len([*output.glob("ready*")]) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)
    emit(event="step", step=5, steps=12)
while not asked:
    time.sleep(0.01)
(output / f"asked{rank}").touch()
"""
DIES = "os.kill(os.getpid(), signal.SIGKILL)\n"

Write = Callable[..., None]


def folder_of(config: Config, cell: Cell = TORCH) -> Path:
    return config.output / "studies" / STUDY / cell.slug


def begin(
    config: Config,
    dataset: Dataset,
    cell: Cell = TORCH,
    on_progress: Any = lambda cell, step, steps: None,
    on_note: Callable[[str], None] = lambda text: None,
    max_restarts: int = 0,
) -> tuple[str, dict[str, float]]:
    listener = Listener(on_progress, on_note=on_note)
    folder = folder_of(config, cell).parent
    return begin_run(config, dataset, cell, "cell", STUDY, folder, listener, max_restarts)


def attempts(folder: Path) -> int:
    return len({log.parent for log in folder.rglob("*.log")})


def ask_this_process_to_end(cell: Cell, step: int, steps: int) -> None:
    """Once the workers train."""
    if step > 0:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_cells_figures_are_its_workers_and_its_wall_clock(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish(examples_per_second=1234.5, eval_accuracy=0.75)", "torch")

    run_id, metrics = begin(config, digits)

    [run] = tracking.read_runs(config)
    assert run.run_id == run_id
    assert run.metrics == {"wall_seconds": metrics["wall_seconds"]}
    assert metrics.pop("wall_seconds") > 0
    assert metrics == {"examples_per_second": 1234.5, "eval_accuracy": 0.75}


def test_a_cells_run_says_what_it_is_before_its_workers_start(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish()", "tf")
    seen = []

    def on_progress(cell: Cell, step: int, steps: int) -> None:
        seen.extend(tracking.read_runs(config))

    begin(config, digits, Cell("tf", "multi_worker_mirrored", 2, "weak", 1), on_progress)

    [run] = seen
    assert (run.name, run.kind) == ("tf multi_worker_mirrored x2 #2", "cell")
    assert run.tags[STUDY_TAG] == STUDY
    expected = {
        "framework": "tf",
        "strategy": "multi_worker_mirrored",
        "workers": "2",
        "scaling": "weak",
        "repeat": "1",
        "batch_size_per_worker": "16",
        "global_batch_size": "32",
        "dataset_fingerprint": digits.manifest.fingerprint,
        "config_sha256": config.digest(),
    }
    assert {name: run.params[name] for name in expected} == expected


def test_workers_learn_which_cell_they_are_and_which_run_they_continue(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.threads_per_worker=2", "training.device=cpu")
    write_worker(REPORTS, "torch")

    run_id, _ = begin(config, digits, Cell("torch", "ddp", 1, "weak", 2))

    folder = config.output / "studies" / STUDY / "torch-ddp-weak-x1-r3"
    report = json.loads((folder / "report.json").read_text())
    stage, *options = report["arguments"]
    assert stage == "train"
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--config": str(folder / "config.yaml"),
        "--output": str(folder),
        "--scaling": "weak",
        "--repeat": "2",
        "--study-id": STUDY,
    }
    assert report["MLFLOW_RUN_ID"] == run_id
    assert report["OMP_NUM_THREADS"] == "2"
    assert report["CUDA_VISIBLE_DEVICES"] == ""
    assert load_config(folder / "config.yaml").training == config.training
    assert load_config(folder / "config.yaml").digest() == config.digest()
    assert (folder / "rank0.log").read_text() == ""


def test_progress_is_the_chiefs(write_worker: Write, config: Config, digits: Dataset) -> None:
    write_worker(
        "if rank == 0:\n"
        "    emit(event='step', step=6, steps=12)\n"
        "    emit(event='something else')\n"
        "    emit(event='step', step=12, steps=12)\n"
        "    finish()\n"
        "else:\n"
        "    emit(event='step', step=7, steps=12)\n",
        "torch",
    )
    cell = Cell("torch", "ddp", 2)
    steps: list[tuple[Cell, int, int]] = []

    begin(config, digits, cell, lambda *said: steps.append(said))

    assert steps == [(cell, 0, 12), (cell, 6, 12), (cell, 12, 12)]


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("print('ValueError: loss is nan'); sys.exit(3)", WorkError, "ValueError: loss is nan"),
        ("print('error: name: required'); sys.exit(2)", InputError, "^name: required$"),
    ],
    ids=["crashes", "refuses its input"],
)
def test_a_cell_whose_worker_fails_is_marked_so(
    write_worker: Write,
    config: Config,
    digits: Dataset,
    program: str,
    error: type[Exception],
    message: str,
) -> None:
    write_worker(program, "torch")

    with pytest.raises(error, match=message):
        begin(config, digits)

    [run] = tracking.read_runs(config)
    assert run.status == "FAILED"
    assert run.metrics == {}


def test_a_cell_whose_worker_ends_without_a_result_is_marked_as_failed(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("print('done, or so I say')", "torch")

    with pytest.raises(WorkError):
        begin(config, digits)

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_an_interrupted_cell_is_marked_as_killed(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("emit(event='step', step=1, steps=12)\nimport time; time.sleep(600)", "torch")

    def interrupt(cell: Cell, step: int, steps: int) -> None:
        if step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin(config, digits, on_progress=interrupt)

    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_a_cell_that_could_not_be_started_is_marked_as_failed(
    config: Config, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", str(tmp_path / "absent"))

    with pytest.raises(InputError, match="TANDEM_TORCH_PYTHON"):
        begin(config, digits)

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_workers_that_read_what_their_framework_transformed_are_told_where(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker(
        "if sys.argv[1] == 'transform':\n"
        "    (output / 'train.records').write_text('1 2 3')\n"
        "else:\n"
        "    records = Path(arguments['--transformed'], 'train.records').read_text()\n"
        "    finish(train_loss=len(records))\n",
        "torch",
    )

    _, metrics = begin(config, digits)

    assert metrics["train_loss"] == 5


def test_a_store_that_emulated_hosts_cannot_reach_is_refused(
    load_quickstart: Callable[..., Config], digits: Dataset
) -> None:
    config = load_quickstart("network.hosts=2", "tracking.uri=http://user:secret@tracking:5000")

    with pytest.raises(InputError, match=r"^tracking\.uri: .* http://\*\*\*@tracking:5000;"):
        begin(config, digits)

    assert not folder_of(config).exists()


def test_a_run_that_needs_no_restart_has_no_figures_of_any(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish(train_loss=0.5)", "torch")

    _, metrics = begin(config, digits, max_restarts=3)

    assert set(metrics) == {"train_loss", "wall_seconds"}
    assert attempts(folder_of(config)) == 1


def test_if_one_worker_dies_all_are_started_again_and_the_loss_is_accounted_for(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(
        "(output / f'start{attempt}-{rank}').touch()\n"
        "if attempt == 1 and rank == 1:\n"
        "    while not (output / 'told').exists():\n"
        "        time.sleep(0.01)\n"
        f"    {DIES}"
        "if attempt == 1:\n"
        "    emit(event='step', step=7, steps=12)\n"
        "    (output / 'told').touch()\n"
        "    time.sleep(600)\n"
        "if rank == 0:\n"
        "    emit(event='resumed', step=4)\n"
        "    emit(event='step', step=5, steps=12)\n"
        "    emit(event='step', step=12, steps=12)\n"
        "    finish(train_loss=0.5)\n",
        "torch",
    )
    notes: list[str] = []

    run_id, metrics = begin(config, digits, TWO, on_note=notes.append, max_restarts=1)

    folder = folder_of(config, TWO)
    assert sorted(path.name for path in folder.glob("start*")) == [
        "start1-0",
        "start1-1",
        "start2-0",
        "start2-1",
    ]
    [run] = tracking.read_runs(config)
    assert run.run_id == run_id
    assert run.status != "FAILED"
    assert {**run.metrics, "train_loss": 0.5} == metrics
    assert (metrics["restarts"], metrics["lost_steps"]) == (1, 3)
    assert 0 < metrics["recovery_seconds"] < metrics["wall_seconds"]
    [note] = notes
    assert note.startswith("worker 1 ended with SIGKILL")
    assert note.endswith("; starting all workers again (1 of 1)")


def test_the_ledger_of_a_run_covers_all_its_attempts_and_their_ends(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(
        "spent = {'initialisation': 0.25, 'step': 2.0, 'data_wait': 0.5}\n"
        "if attempt == 1:\n"
        "    emit(event='step', step=1, steps=12, spent={'initialisation': 0.25})\n"
        "    emit(event='step', step=8, steps=12, spent=spent)\n"
        f"    {DIES}"
        "emit(event='step', step=5, steps=12, spent=spent)\n"
        "phases = {'report_seconds': 0.5, 'exit_seconds': 0.0}\n"
        "finish()\n"
        "emit(event='ended', phases=phases, spent={'step': 4.0, 'tracking': 1.0})\n",
        "torch",
    )

    _, metrics = begin(config, digits, max_restarts=1)

    assert metrics["goodput_seconds"] == 4 + 2.0 / 2  # four of its eight steps were kept
    assert metrics["badput_data_wait_seconds"] == 0.5 / 2
    assert metrics["badput_initialisation_seconds"] == 0.25
    assert metrics["badput_tracking_seconds"] == 1
    assert metrics["badput_wasted_steps_seconds"] > 2.0 / 2 + 0.5 / 2
    assert metrics["badput_shutdown_seconds"] > 0
    assert metrics["exit_seconds"] == metrics["badput_shutdown_seconds"]
    assert metrics["goodput_share"] == metrics["goodput_seconds"] / metrics["wall_seconds"]
    assert metrics["report_seconds"] == 0.5
    [run] = tracking.read_runs(config)
    assert run.metrics == metrics


def test_what_an_operator_has_to_know_of_is_counted_at_the_first_step(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(
        "import socket, subprocess\n"
        "listening = socket.socket()\n"
        "listening.bind(('127.0.0.1', 0))\n"
        "listening.listen()\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "(output / f'ready{rank}').touch()\n"
        "while len([*output.glob('ready*')]) < 2:\n"
        "    time.sleep(0.01)\n"
        "emit(event='step', step=1, steps=12)\n"
        "while not (output / 'counted').exists():\n"
        "    time.sleep(0.01)\n"
        "child.kill()\n"
        "finish()\n",
        "torch",
    )

    def counted(cell: Cell, step: int, steps: int) -> None:
        if step:
            (folder_of(config, TWO) / "counted").touch()

    _, metrics = begin(config, digits, TWO, counted)

    assert metrics["processes"] == 4
    assert metrics["listening_ports"] == 2
    assert metrics["environment_variables"] > 10


def test_every_attempt_keeps_its_logs(write_worker: Write, config: Config, digits: Dataset) -> None:
    write_worker(
        f"print('attempt', attempt, flush=True)\nif attempt < 3:\n    {DIES}finish()", "torch"
    )

    begin(config, digits, max_restarts=2)

    folder = folder_of(config)
    logs = {str(log.relative_to(folder)): log.read_text() for log in folder.rglob("*.log")}
    assert logs == {
        "rank0.log": "attempt 1\n",
        "attempt2/rank0.log": "attempt 2\n",
        "attempt3/rank0.log": "attempt 3\n",
    }


@pytest.mark.parametrize(
    ("program", "lost"),
    [
        (
            "if attempt == 1:\n"
            "    emit(event='step', step=7, steps=12)\n"
            f"    {DIES}"
            "emit(event='step', step=1, steps=12)\n",
            7,
        ),
        (
            "if attempt > 1:\n"
            "    emit(event='resumed', step=4)\n"
            "if attempt == 1:\n"
            "    emit(event='step', step=7, steps=12)\n"
            "if attempt < 3:\n"
            f"    {DIES}"
            "emit(event='step', step=5, steps=12)\n",
            3,
        ),
        (
            "if attempt > 1:\n"
            "    emit(event='resumed', step=4 * (attempt - 1))\n"
            "emit(event='step', step=4 * attempt + 1, steps=99)\n"
            f"if attempt < 3:\n"
            f"    {DIES}",
            2,
        ),
        (
            f"if attempt == 1:\n    {DIES}emit(event='step', step=1, steps=12)\n",
            0,
        ),
    ],
    ids=["without a checkpoint", "again before the next step", "again later", "before any step"],
)
def test_steps_that_are_done_again_are_counted_once_as_lost(
    write_worker: Write, config: Config, digits: Dataset, program: str, lost: int
) -> None:
    write_worker(f"{program}finish()", "torch")

    _, metrics = begin(config, digits, max_restarts=2)

    assert metrics["lost_steps"] == lost
    assert metrics["restarts"] == attempts(folder_of(config)) - 1


def test_a_run_that_fails_once_too_often_is_given_up(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("sys.exit(f'attempt {attempt} broke')", "torch")
    notes: list[str] = []

    with pytest.raises(WorkError, match="exit code 1: attempt 3 broke"):
        begin(config, digits, on_note=notes.append, max_restarts=2)

    assert attempts(folder_of(config)) == 3
    assert [note.rpartition("again ")[2] for note in notes] == ["(1 of 2)", "(2 of 2)"]
    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_input_that_was_refused_once_would_be_refused_again(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("print('error: name: required'); sys.exit(2)", "torch")

    with pytest.raises(InputError, match=r"^name: required$"):
        begin(config, digits, max_restarts=3)

    assert attempts(folder_of(config)) == 1


def test_a_run_that_diverges_would_diverge_again(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(
        "emit(event='diverged', message='the loss was not finite at step 3'); sys.exit(1)", "torch"
    )

    with pytest.raises(DivergedError) as raised:
        begin(config, digits, max_restarts=3)

    folder = folder_of(config)
    assert str(raised.value) == f"the loss was not finite at step 3 (in {folder})"
    assert raised.value.exit_code == 1
    assert attempts(folder) == 1
    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_a_run_that_stopped_when_asked_says_how_to_go_on_and_is_no_failure(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("emit(event='preempted', step=6)", "torch")

    with pytest.raises(PreemptedError) as raised:
        begin(config, digits)

    folder = folder_of(config)
    assert str(raised.value) == (
        f"asked to end, and saved after step 6; go on with `tandem train torch --resume {folder}`"
    )
    assert raised.value.exit_code == 0
    assert "FAILED" not in [run.status for run in tracking.read_runs(config)]
    assert RunFolder.to_resume(folder).cell == TORCH


def test_a_studys_cell_that_stopped_when_asked_is_killed_and_its_study_goes_on(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    study, _ = StudyFolder.begin(config, STUDY)
    write_worker("emit(event='preempted', step=6)", "torch")

    with pytest.raises(PreemptedError) as raised:
        begin(config, digits)

    assert str(raised.value).endswith(f"step 6; go on with `tandem study --resume {study}`")
    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_being_asked_to_end_reaches_every_worker_and_is_not_followed_by_a_restart(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    write_worker(f"{WAITS_TO_BE_ASKED}if rank == 0:\n    emit(event='preempted', step=6)", "torch")

    with pytest.raises(PreemptedError, match="saved after step 6"):
        begin(config, digits, TWO, ask_this_process_to_end, max_restarts=3)

    folder = folder_of(config, TWO)
    assert sorted(path.name for path in folder.glob("asked*")) == ["asked0", "asked1"]
    assert attempts(folder) == 1
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_run_that_was_asked_to_end_and_could_not_save_is_not_started_again(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(f"{WAITS_TO_BE_ASKED}sys.exit('error: disk full')", "torch")

    with pytest.raises(WorkError, match="exit code 1: error: disk full"):
        begin(config, digits, on_progress=ask_this_process_to_end, max_restarts=3)

    assert attempts(folder_of(config)) == 1
    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_a_run_that_is_asked_to_end_before_its_workers_are_there_does_not_train_to_the_end(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish()", "torch")

    def ask_at_once(cell: Cell, step: int, steps: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match="asked to end before its workers were started; go on"):
        begin(config, digits, on_progress=ask_at_once)

    assert not (folder_of(config) / "result.json").exists()
    [run] = tracking.read_runs(config)
    assert (run.status, run.tags[PREEMPTED_TAG]) == ("KILLED", "0")


def test_a_run_that_ends_well_after_all_though_it_was_asked_to_end_has_ended_well(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(
        "if attempt == 1:\n"
        "    emit(event='preempted', step=6)\n"  # as when one worker's machine is taken away
        "    sys.exit('connection lost')\n"
        "emit(event='resumed', step=6)\n"
        "emit(event='step', step=7, steps=12)\n"
        "finish(train_loss=0.5)\n",
        "torch",
    )

    _, metrics = begin(config, digits, max_restarts=1)

    assert metrics["train_loss"] == 0.5
    assert metrics["restarts"] == 1


@pytest.mark.parametrize("said", ["", "emit(event='step', step=7, steps=12)\n"])
def test_a_run_that_was_preempted_and_went_on_within_one_attempt_has_ended_well(
    write_worker: Write, config: Config, digits: Dataset, said: str
) -> None:
    write_worker(f"emit(event='preempted', step=6)\n{said}finish(train_loss=0.5)\n", "torch")

    assert begin(config, digits)[1]["train_loss"] == 0.5


def test_an_attempt_that_went_on_after_a_preemption_and_has_no_result_has_failed(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("emit(event='preempted', step=6)\nemit(event='resumed', step=6)\n", "torch")

    with pytest.raises(WorkError, match="ended without a result"):
        begin(config, digits)


def test_a_resumed_run_goes_on_in_its_folder_and_as_the_same_tracked_run(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("training.batch_size_per_worker=16")
    cell = Cell("torch", "ddp", 1, "weak", 2)
    write_worker(
        "if attempt == 1:\n"
        "    emit(event='preempted', step=6)\n"
        "elif rank == 0:\n"
        "    report = {'arguments': sys.argv[1:], **os.environ}\n"
        "    (output / 'report.json').write_text(json.dumps(report))\n"
        "    finish(train_loss=0.5)\n",
        "torch",
    )
    with pytest.raises(PreemptedError):
        begin(config, digits, cell)
    [begun] = tracking.read_runs(config)
    folder = folder_of(config, cell)

    shared_out = configure("training.batch_size_per_worker=8")
    run_id, metrics = resume_run(shared_out, digits, folder, 2, Listener())

    assert run_id == begun.run_id
    assert metrics["train_loss"] == 0.5
    [run] = tracking.read_runs(config)
    assert run.metrics["wall_seconds"] == metrics["wall_seconds"]
    resumed = Cell("torch", "ddp", 2, "weak", 2)
    store = config.tracking_uri
    assert RunFolder.find(folder) == RunFolder.of(run_id, resumed, STUDY, store)
    assert load_config(folder / "config.yaml").training == shared_out.training
    report = json.loads((folder / "report.json").read_text())
    _, *options = report["arguments"]
    assert dict(zip(options[::2], options[1::2], strict=True)) == {
        "--config": str(folder / "config.yaml"),
        "--output": str(folder),
        "--scaling": "weak",
        "--repeat": "2",
        "--study-id": STUDY,
    }
    assert (report["MLFLOW_RUN_ID"], report["WORLD_SIZE"]) == (run_id, "2")
    assert sorted(str(log.relative_to(folder)) for log in folder.rglob("*.log")) == [
        "attempt2/rank0.log",
        "attempt2/rank1.log",
        "rank0.log",
    ]


def test_a_resumed_run_is_started_again_too_and_can_be_asked_to_end_again(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker(f"if attempt == 2:\n    {DIES}emit(event='preempted', step=3 * attempt)", "torch")
    with pytest.raises(PreemptedError, match="after step 3;"):
        begin(config, digits)

    with pytest.raises(PreemptedError, match="after step 9;"):
        resume_run(config, digits, folder_of(config), 1, Listener(), max_restarts=1)

    assert attempts(folder_of(config)) == 3


@pytest.mark.parametrize("at_work", ["", "checkpoints"])
def test_a_run_on_which_others_still_work_is_not_gone_on_with(
    write_worker: Write, config: Config, digits: Dataset, at_work: str
) -> None:
    """Another launcher, or workers that outlive theirs."""
    write_worker("emit(event='preempted', step=3)", "torch")
    with pytest.raises(PreemptedError):
        begin(config, digits)
    folder = folder_of(config)
    before = (folder / "run.json").read_text()

    with (
        held_alone(folder / at_work, "give up"),
        pytest.raises(InputError, match="another process is working there; wait for it"),
    ):
        resume_run(config, digits, folder, 2, Listener())

    assert (folder / "run.json").read_text() == before
    assert attempts(folder) == 1
    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_a_run_that_has_ended_well_is_not_gone_on_with(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish()", "torch")
    run_id, _ = begin(config, digits)

    with pytest.raises(InputError, match=f"run {run_id} has ended"):
        resume_run(config, digits, folder_of(config), 1, Listener())

    assert attempts(folder_of(config)) == 1


def test_a_folder_without_a_run_is_not_gone_on_with(
    config: Config, digits: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no run there"):
        resume_run(config, digits, tmp_path, 1, Listener())

    assert not (tmp_path / "rank0.log").exists()
