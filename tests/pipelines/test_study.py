import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config, load_config
from pipelines.errors import InputError, WorkError
from pipelines.ingest import Dataset
from pipelines.runs import STUDY_TAG
from pipelines.study import plan, run_cell, run_study

STUDY = "20250601T120000Z"
TORCH = Cell("torch", "ddp", 1)

# A worker that trains nothing; it runs as ``python -m <framework>_pipeline ...``.
PROLOGUE = """
import json, os, sys
from pathlib import Path

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
output = Path(arguments["--output"])
rank = int(os.environ.get("RANK", 0))

def emit(**event):
    print("::tandem " + json.dumps(event), flush=True)

def finish(**metrics):
    (output / "result.json").write_text(json.dumps({"metrics": metrics}))

"""
REPORTS = """
(output / "report.json").write_text(json.dumps({"arguments": sys.argv[1:], **os.environ}))
finish()
"""

Write = Callable[..., None]
Steps = list[tuple[Cell, int, int]]


@pytest.fixture(autouse=True)
def fake_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both frameworks' packages are found in ``tmp_path``, and run by this interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_TF_PYTHON", sys.executable)
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)


@pytest.fixture
def write_worker(tmp_path: Path) -> Write:
    def write(program: str, *frameworks: str) -> None:
        for framework in frameworks or ("tf", "torch"):
            package = tmp_path / f"{framework}_pipeline"
            package.mkdir()
            (package / "__init__.py").touch()  # a package without one would lose to the real one
            (package / "__main__.py").write_text(PROLOGUE + program)

    return write


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def configure(
    uri: str, tmp_path: Path, load_quickstart: Callable[..., Config]
) -> Callable[..., Config]:
    def load(*overrides: str) -> Config:
        return load_quickstart(f"name={tmp_path.name}", f"tracking.uri={uri}", *overrides)

    return load


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure()


def ignore(cell: Cell, step: int, steps: int) -> None:
    pass


def measure(
    config: Config, dataset: Dataset, cell: Cell = TORCH, on_progress: Any = ignore
) -> tuple[str, dict[str, float]]:
    folder = config.output / "studies" / STUDY
    return run_cell(config, dataset, cell, "cell", STUDY, folder, on_progress)


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


def test_a_cells_figures_are_its_workers_and_its_wall_clock(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("finish(examples_per_second=1234.5, eval_accuracy=0.75)", "torch")

    run_id, metrics = measure(config, digits)

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

    measure(config, digits, Cell("tf", "multi_worker_mirrored", 2, "weak", 1), on_progress)

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

    run_id, _ = measure(config, digits, Cell("torch", "ddp", 1, "weak", 2))

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
    steps: Steps = []

    measure(config, digits, cell, lambda *said: steps.append(said))

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
        measure(config, digits)

    [run] = tracking.read_runs(config)
    assert run.status == "FAILED"
    assert run.metrics == {}


def test_a_cell_whose_worker_ends_without_a_result_is_marked_as_failed(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("print('done, or so I say')", "torch")

    with pytest.raises(WorkError):
        measure(config, digits)

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_an_interrupted_cell_is_marked_as_killed(
    write_worker: Write, config: Config, digits: Dataset
) -> None:
    write_worker("emit(event='step', step=1, steps=12)\nimport time; time.sleep(600)", "torch")

    def interrupt(cell: Cell, step: int, steps: int) -> None:
        if step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(config, digits, on_progress=interrupt)

    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_a_cell_that_could_not_be_started_is_marked_as_failed(
    config: Config, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", str(tmp_path / "absent"))

    with pytest.raises(InputError, match="TANDEM_TORCH_PYTHON"):
        measure(config, digits)

    assert [run.status for run in tracking.read_runs(config)] == ["FAILED"]


def test_a_study_measures_every_cell_of_its_plan_in_order(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("study.workers=[1]", "study.repeats=2")
    write_worker("finish()")
    steps: Steps = []

    run_ids = run_study(config, digits, STUDY, lambda *said: steps.append(said))

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
        run_study(config, digits, STUDY, ignore)

    first, second = tracking.read_runs(config)
    assert (first.params["framework"], second.params["framework"]) == ("tf", "torch")
    assert first.metrics["wall_seconds"] > 0
    assert second.status == "FAILED"


TRANSFORMS = """
if sys.argv[1] == "transform":
    with Path("transformed.txt").open("a") as calls:
        calls.write("once\\n")
    (output / "train.records").write_text("1 2 3")
else:
    assert Path(arguments["--transformed"], "train.records").read_text() == "1 2 3"
    finish()
"""


def test_a_frameworks_own_transform_runs_once_for_all_cells(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker(TRANSFORMS, "torch")

    measure(config, digits)
    measure(config, digits, Cell("torch", "ddp", 1, repeat=1))

    assert Path("transformed.txt").read_text() == "once\n"
    [folder] = (config.output / "transformed").iterdir()
    assert folder.name == f"torch-{digits.manifest.fingerprint[:16]}"


def test_a_transform_that_fails_is_not_taken_for_one_that_did_not(
    write_worker: Write, configure: Callable[..., Config], digits: Dataset
) -> None:
    config = configure("data.reader=native")
    write_worker("(output / 'train.records').write_text('1 2'); sys.exit(3)", "torch")
    with pytest.raises(WorkError, match="exit code 3"):
        measure(config, digits)
    Path("torch_pipeline", "__main__.py").write_text(PROLOGUE + TRANSFORMS)

    measure(config, digits)

    assert Path("transformed.txt").read_text() == "once\n"
