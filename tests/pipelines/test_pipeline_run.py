import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import tracking
from pipelines.config import Config, load_config
from pipelines.dag import PipelineResult
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.ingest import Dataset
from pipelines.pipeline_run import run_pipeline
from pipelines.runs import COMPONENT_STARTUP_TAG, COMPONENT_WORK_TAG, COMPONENTS_TAG, STUDY_TAG

STUDY = "20250601T120000Z"
COMPONENTS = {"Reader": 1.5, "Statistics": 0.25, "Transform": 2.0, "Trainer": 8.0, "Evaluator": 4.0}
SOFTWARE = {"framework_version": "framework 1.0", "software_build": "cpu"}

# A DAG that does nothing; it runs as ``python -m <framework>_pipeline pipeline ...``.
PROLOGUE = f"""
import os, sys
sys.path.insert(1, {str(PROJECT_ROOT)!r})
from pathlib import Path
from pipelines.dag import PipelineResult
from pipelines.events import emit

output = Path(sys.argv[sys.argv.index("--output") + 1])
COMPONENTS = {COMPONENTS!r}
STAGE_OF = dict(zip(COMPONENTS, ["validate", "validate", "transform", "train", "evaluate"]))
"""
WORKS = """
print("a runner's chatter")
for name in COMPONENTS:
    emit("component", name=name, of=5, at=100.0)
    emit("something else")
    if name not in CACHED and name not in globals().get("SILENT", []):
        print("    ", end="")  # as kfp's runner has it
        emit("work", name=name, began=100.5, seconds=COMPONENTS[name] / 2)
PipelineResult.collect(
    COMPONENTS, STAGE_OF, cached=CACHED, blessed=BLESSED, metrics={"eval_accuracy": 0.875},
    pushed_to=None, processes=3,
).write(output)
"""

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def fake_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both frameworks' packages are found in ``tmp_path``, and run by this interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_TF_PYTHON", sys.executable)
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)


@pytest.fixture
def write_dag(tmp_path: Path) -> Write:
    def write(program: str, framework: str = "torch", **values: object) -> None:
        package = tmp_path / f"{framework}_pipeline"
        package.mkdir()
        (package / "__init__.py").touch()  # a package without one would lose to the real one
        (package / "strategy.py").write_text(f"def describe_software():\n    return {SOFTWARE}\n")
        set_values = "".join(f"{name} = {value!r}\n" for name, value in values.items())
        (package / "__main__.py").write_text(PROLOGUE + set_values + program)

    return write


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def config(uri: str, tmp_path: Path, load_quickstart: Callable[..., Config]) -> Config:
    return load_quickstart(f"name={tmp_path.name}", f"tracking.uri={uri}", "training.device=cpu")


def ignore(name: str, number: int, components: int) -> None:
    pass


def test_another_execution_of_the_dag_in_the_same_folder_is_refused_and_leaves_no_run(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=[], BLESSED=True)
    tracking.prepare_store(config)
    folder = config.output / "pipelines" / "torch"
    with (
        held_alone(folder, "give up"),
        pytest.raises(InputError, match=r"another process is working there; .*output"),
    ):
        run_pipeline(config, "torch", digits, STUDY, ignore)

    assert not (folder / "config.yaml").exists()
    assert tracking.read_runs(config) == []


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_a_dags_figures_are_logged_to_a_run_of_its_own(
    write_dag: Write, config: Config, digits: Dataset, framework: str
) -> None:
    write_dag(WORKS, framework, CACHED=["Reader", "Transform"], BLESSED=True)

    result, seconds = run_pipeline(config, framework, digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    assert (run.name, run.kind, run.status) == (f"{framework} pipeline", "pipeline", "FINISHED")
    assert run.tags[STUDY_TAG] == STUDY
    assert list(json.loads(run.tags[COMPONENTS_TAG]).items()) == list(COMPONENTS.items())
    assert run.params["framework"] == framework
    assert run.params["dataset_fingerprint"] == digits.manifest.fingerprint
    assert run.params["config_sha256"] == config.digest()
    assert SOFTWARE.items() <= run.params.items()
    assert seconds > 0
    assert run.metrics == {
        "validate_stage_seconds": 1.75,
        "transform_stage_seconds": 2.0,
        "train_stage_seconds": 8.0,
        "evaluate_stage_seconds": 4.0,
        "push_stage_seconds": 0.0,
        "pipeline_seconds": seconds,
        "cached_stages": 2.0,
        "blessed": 1.0,
        "eval_accuracy": 0.875,
        "pipeline_work_seconds": 6.125,
        "pipeline_startup_seconds": 1.5,
        "pipeline_overhead_seconds": seconds - 6.125,
        "pipeline_processes": 3.0,
    }
    worked = {"Statistics": 0.125, "Trainer": 4.0, "Evaluator": 2.0}
    assert json.loads(run.tags[COMPONENT_WORK_TAG]) == result.work == worked
    started = dict.fromkeys(worked, 0.5)
    assert json.loads(run.tags[COMPONENT_STARTUP_TAG]) == result.startup == started
    assert result == PipelineResult.read(config.output / "pipelines" / framework)
    assert result.components == COMPONENTS


def test_where_nothing_is_left_to_do_all_is_overhead(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=list(COMPONENTS), BLESSED=True)

    result, seconds = run_pipeline(config, "torch", digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    assert (result.work, result.startup) == ({}, {})
    assert run.metrics["pipeline_work_seconds"] == run.metrics["pipeline_startup_seconds"] == 0
    assert run.metrics["pipeline_overhead_seconds"] == seconds


def test_overhead_is_not_known_where_a_component_has_not_told_of_its_work(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=[], SILENT=["Trainer"], BLESSED=True)

    result, _ = run_pipeline(config, "torch", digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    assert "Trainer" not in result.work
    told = {name for name in run.metrics if name.startswith("pipeline_")}
    assert told == {"pipeline_seconds", "pipeline_processes"}


def test_a_model_that_was_not_blessed_is_no_failure(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=[], BLESSED=False)

    result, _ = run_pipeline(config, "torch", digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    assert result.blessed is False
    assert (run.metrics["blessed"], run.metrics["cached_stages"]) == (0.0, 0.0)
    assert run.status == "FINISHED"


def test_the_dataset_is_the_runs_input(
    write_dag: Write, config: Config, digits: Dataset, uri: str
) -> None:
    from mlflow import MlflowClient

    write_dag(WORKS, CACHED=[], BLESSED=True)

    run_pipeline(config, "torch", digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    [given] = MlflowClient(uri).get_run(run.run_id).inputs.dataset_inputs
    assert given.dataset.digest == digits.manifest.fingerprint[:36]


def test_every_component_is_told_as_it_begins(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=[], BLESSED=True)
    begun: list[tuple[str, int, int]] = []

    run_pipeline(config, "torch", digits, STUDY, lambda *said: begun.append(said))

    assert begun == [(name, number, 5) for number, name in enumerate(COMPONENTS, start=1)]


def test_the_dag_gets_the_resolved_config_and_a_log(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(
        "print(*sys.argv[1:], sep='\\n')\n"
        "print('GPUs:', repr(os.environ['CUDA_VISIBLE_DEVICES']))\n" + WORKS,
        CACHED=[],
        BLESSED=True,
    )

    run_pipeline(config, "torch", digits, STUDY, ignore, workers=2)

    folder = config.output / "pipelines" / "torch"
    assert load_config(folder / "config.yaml").digest() == config.digest()
    assert (folder / "logs" / "rank0.log").read_text().splitlines() == [
        "pipeline",
        "--config",
        str(folder / "config.yaml"),
        "--output",
        str(folder),
        "--workers",
        "2",
        "GPUs: ''",
        "a runner's chatter",
    ]


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        ("print('RuntimeError: Trainer failed'); sys.exit(1)", WorkError, "Trainer failed"),
        ("print('error: out/data: no such dataset'); sys.exit(2)", InputError, "^out/data: no"),
    ],
    ids=["a component fails", "the input is refused"],
)
def test_a_dag_that_fails_leaves_a_failed_run(
    write_dag: Write,
    config: Config,
    digits: Dataset,
    program: str,
    error: type[Exception],
    message: str,
) -> None:
    write_dag("emit('component', name='Reader', of=5)\n" + program)

    with pytest.raises(error, match=message):
        run_pipeline(config, "torch", digits, STUDY, ignore)

    [run] = tracking.read_runs(config)
    assert run.status == "FAILED"
    assert run.metrics == {}
    assert COMPONENTS_TAG not in run.tags


def test_an_interrupted_dag_leaves_a_killed_run(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag("emit('component', name='Reader', of=5)\nimport time; time.sleep(600)")

    def interrupt(name: str, number: int, components: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(config, "torch", digits, STUDY, interrupt)

    assert [run.status for run in tracking.read_runs(config)] == ["KILLED"]


def test_a_dag_that_ends_without_a_result_is_not_taken_for_the_one_before(
    write_dag: Write, config: Config, digits: Dataset
) -> None:
    write_dag(WORKS, CACHED=[], BLESSED=True)
    run_pipeline(config, "torch", digits, STUDY, ignore)
    Path("torch_pipeline", "__main__.py").write_text("print('done, or so I say')")

    with pytest.raises(WorkError):
        run_pipeline(config, "torch", digits, STUDY, ignore)

    statuses = [run.status for run in tracking.read_runs(config)]
    assert statuses == ["FINISHED", "FAILED"]
