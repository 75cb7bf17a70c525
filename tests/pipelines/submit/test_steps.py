import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.cluster_config import CLUSTER_VARIABLE, ClusterConfig
from pipelines.config import Config
from pipelines.errors import ComparisonRefusedError, UnansweredError, WorkError
from pipelines.ingest import Dataset
from pipelines.parity.members import abridged, strategy_pairs
from pipelines.parity.record import parity_params
from pipelines.runs import ATTEMPT_TAG, PARITY_PASSED, PREEMPTED_TAG
from pipelines.strategies import Framework
from pipelines.submit import steps
from pipelines.submit.shared_step import StepFolders, shared_with_job
from pipelines.submit.steps import begin_study, prove_parity, train_cell
from pipelines.training_run import begin_run

CELL = Cell("torch", "ddp", 1)
CPU_BUILD = json.dumps({"framework_version": "1", "software_build": "cpu"})

PREEMPTED_ONCE = """
if output.name.endswith("attempt2"):
    finish(examples_per_second=1000.0)
else:
    emit(event="preempted", step=3)
"""
DIES_ONCE = """
if not output.name.endswith("attempt2"):
    sys.exit("node lost")
finish(examples_per_second=1000.0)
"""
PREEMPTED_ALWAYS = """
emit(event="preempted", step=3)
"""


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def config(
    uri: str,
    tmp_path: Path,
    load_quickstart: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
) -> Config:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return load_quickstart(f"name={tmp_path.name}", "cluster.max_restarts=2")


@pytest.fixture
def settings(config: Config) -> str:
    return json.dumps(config.without_secrets())


def test_a_study_begins_with_its_dataset_and_an_id(config: Config, settings: str) -> None:
    study_id = begin_study(settings)

    assert (config.dataset_dir / "manifest.json").exists()
    assert (config.output / "studies" / study_id / "study.json").exists()
    assert tracking.read_runs(config) == []


def test_a_cell_that_was_measured_is_not_measured_again(
    settings: str, write_worker: Callable[..., None]
) -> None:
    write_worker("finish(examples_per_second=1000.0)")
    study_id = begin_study(settings)

    first = train_cell(settings, study_id, CELL)
    write_worker("sys.exit(1)")

    assert train_cell(settings, study_id, CELL) == first
    with pytest.raises(WorkError):
        train_cell(settings, study_id, Cell("torch", "ddp", 2))


def test_a_preempted_cell_is_begun_again_as_a_run_of_its_own(
    config: Config, settings: str, write_worker: Callable[..., None]
) -> None:
    write_worker(PREEMPTED_ONCE)
    study_id = begin_study(settings)

    run_id = train_cell(settings, study_id, CELL)

    first, second = sorted(tracking.read_runs(config), key=lambda run: run.start_time)
    assert first.status == "KILLED"
    assert (second.run_id, second.status) == (run_id, "FINISHED")
    assert second.tags[ATTEMPT_TAG] == "2"
    assert first.kind == second.kind == "cell"


@pytest.mark.parametrize("spot", ["gke", "none"])
def test_a_cell_whose_worker_dies_is_begun_again_on_spot_nodes_alone(
    config: Config, settings: str, write_worker: Callable[..., None], spot: str
) -> None:
    write_worker(DIES_ONCE)
    own = json.loads(settings)
    own["cluster"]["spot"] = spot
    study_id = begin_study(settings)

    if spot == "none":
        with pytest.raises(WorkError, match="node lost"):
            train_cell(json.dumps(own), study_id, CELL)
        return
    run_id = train_cell(json.dumps(own), study_id, CELL)

    runs = sorted(tracking.read_runs(config), key=lambda run: run.start_time)
    assert [run.status for run in runs] == ["FAILED", "FINISHED"]
    assert runs[1].run_id == run_id
    assert "restarts" not in runs[1].metrics


def test_a_cell_whose_job_a_queue_has_interrupted_is_begun_again(
    config: Config,
    settings: str,
    write_worker: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_worker("finish(examples_per_second=1000.0)")
    begun: list[str] = []

    def interrupted_once(*arguments: Any) -> tuple[str, object]:
        run_id, metrics = begin_run(*arguments)
        begun.append(run_id)
        if len(begun) == 1:  # its workers saved, and others have gone on within the same job
            tracking.log_metrics(config, run_id, {}, {PREEMPTED_TAG: "3"})
        return run_id, metrics

    monkeypatch.setattr(steps, "begin_run", interrupted_once)

    assert train_cell(settings, begin_study(settings), CELL) == begun[-1]
    assert len(set(begun)) == 2


def test_a_cell_whose_job_can_no_longer_be_asked_about_is_not_begun_beside_it(
    settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = json.loads(settings)
    own["cluster"]["spot"] = "gke"
    begun: list[object] = []

    def begin_run(*arguments: object) -> None:
        begun.append(arguments)
        raise UnansweredError("the Kubernetes API does not answer")

    monkeypatch.setattr(steps, "begin_run", begin_run)

    with pytest.raises(UnansweredError):
        train_cell(json.dumps(own), begin_study(settings), CELL)
    assert len(begun) == 1


def test_a_finished_run_that_was_interrupted_is_no_measured_cell(
    config: Config, settings: str, write_worker: Callable[..., None]
) -> None:
    write_worker("finish(examples_per_second=1000.0)")
    study_id = begin_study(settings)
    first = train_cell(settings, study_id, CELL)
    tracking.log_metrics(config, first, {}, {PREEMPTED_TAG: "3"})

    assert train_cell(settings, study_id, CELL) != first


def test_a_cell_that_is_preempted_again_and_again_fails(
    settings: str, write_worker: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_worker(PREEMPTED_ALWAYS)
    study_id = begin_study(settings)

    with pytest.raises(WorkError, match="saved after step 3"):
        train_cell(settings, study_id, CELL)
    assert "beginning again (2 of 2)" in capsys.readouterr().out


def test_in_a_step_the_hardware_is_what_the_workers_say(
    config: Config,
    settings: str,
    write_worker: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study_id = begin_study(settings)
    monkeypatch.setenv(
        CLUSTER_VARIABLE, ClusterConfig(tracking_uri=config.tracking_uri).model_dump_json()
    )
    started: list[Any] = []

    def launch_job(cluster: ClusterConfig, *arguments: Any, **options: Any) -> float:
        started.append(arguments)
        raise WorkError("no cluster here")

    from pipelines.submit import job_launcher

    monkeypatch.setattr(job_launcher, "launch_job", launch_job)
    own = json.loads(settings)
    own["cluster"]["tracking_uri"] = config.tracking_uri
    with pytest.raises(WorkError):
        train_cell(json.dumps(own), study_id, CELL)

    [(framework, arguments)] = started
    assert (framework, arguments[0]) == ("torch", "train")
    [run] = tracking.read_runs(config)
    assert "hardware" not in run.params
    assert run.status == "FAILED"


def test_a_proof_rests_on_what_the_frameworks_said_in_their_own_images(
    config: Config, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study_id = begin_study(settings)
    software: dict[Framework, dict[str, str]] = {
        "tf": {"framework_version": "tensorflow 9", "software_build": "cuda12"},
        "torch": {"framework_version": "torch 9", "software_build": "cuda12"},
    }
    [pair] = strategy_pairs(config)
    manifest = Dataset.open(config.dataset_dir).manifest
    params = parity_params(abridged(pair), manifest, software)
    passed = tracking.create_run(config, "parity passed", "parity", study_id, params)
    tracking.log_metrics(config, passed, {PARITY_PASSED: 1.0})
    tracking.finish_run(config, passed, "FINISHED")
    before = dict(os.environ)
    capsys.readouterr()

    prove_parity(settings, study_id, {name: json.dumps(said) for name, said in software.items()})

    assert capsys.readouterr().out == (f"passed before on the same inputs and code: run {passed}\n")
    assert dict(os.environ) == before


def test_proofs_of_two_submissions_at_once_do_not_share_a_folder(
    config: Config, settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders: list[Path] = []

    def prove(*arguments: Any, runs: Path) -> None:
        folders.append(runs)
        raise WorkError("no frameworks here")

    monkeypatch.setattr("pipelines.parity.prove.prove", prove)
    studies = [begin_study(settings), begin_study(settings)]
    software: dict[Framework, str] = {"tf": CPU_BUILD, "torch": CPU_BUILD}
    for study_id in studies:
        with pytest.raises(WorkError, match="no frameworks here"):
            prove_parity(settings, study_id, software)

    assert folders == [config.output / "studies" / each / "parity" for each in studies]
    assert len(set(folders)) == 2


def test_frameworks_of_different_builds_are_refused_before_anything_is_measured(
    config: Config, settings: str
) -> None:
    study_id = begin_study(settings)
    other = json.dumps({"framework_version": "1", "software_build": "cuda13"})

    with pytest.raises(ComparisonRefusedError, match=r"\(tf: cpu, torch: cuda13\)"):
        prove_parity(settings, study_id, {"tf": CPU_BUILD, "torch": other})

    assert tracking.read_runs(config) == []


def test_a_training_steps_folders_are_on_the_claim_while_its_job_runs(tmp_path: Path) -> None:
    own = StepFolders(*(tmp_path / each for each in ("config", "examples", "fn", "model")))
    own.transformed.mkdir()
    own.transform_fn.mkdir()
    (own.transformed / "train.parquet").write_text("examples")
    claim = tmp_path / "claim"

    with shared_with_job(ClusterConfig(mount_path=str(claim)), own) as shared:
        assert (shared.transformed / "train.parquet").read_text() == "examples"
        for folder in (shared.config, shared.transformed, shared.transform_fn, shared.output):
            assert folder.is_relative_to(claim)
        shared.output.mkdir()
        (shared.output / "model.pt2").write_text("weights")

    assert (own.output / "model.pt2").read_text() == "weights"
    assert not list((claim / "tandem" / ".steps").iterdir())
    with shared_with_job(None, own) as here:
        assert here == own
