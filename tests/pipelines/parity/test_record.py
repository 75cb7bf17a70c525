import json
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli import actions
from pipelines.cli.commands import app
from pipelines.cli.narrator import Narrator
from pipelines.compare.rules import check_parity
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import ComparisonRefusedError, WorkError
from pipelines.ingest import Dataset
from pipelines.parity.record import find_passed, parity_params, read
from pipelines.parity.software import code_digest, describe_frameworks
from pipelines.runs import PARITY_FIELDS, PARITY_PASSED, PARITY_SIDE_FIELDS, RunRecord
from pipelines.tracking import read_runs

Load = Callable[..., Config]
SHORT = ("parity.steps=12", "parity.workers=[1]", "parity.floor_runs=1", "parity.permuted_runs=0")


@pytest.fixture
def config(load_quickstart: Load) -> Config:
    return load_quickstart(*SHORT)


@pytest.fixture
def params(config: Config, digits: Dataset, frameworks: object) -> dict[str, object]:
    return parity_params(config, digits.manifest, describe_frameworks(config))


def verdict_on(params: dict[str, object], passed: bool = True, start: float = 0.0) -> RunRecord:
    return RunRecord(
        run_id=f"run{start}",
        name="parity",
        status="FINISHED",
        start_time=start,
        params={name: str(value) for name, value in params.items()},
        tags={"tandem.kind": "parity"},
        metrics={PARITY_PASSED: float(passed)},
    )


def test_a_verdict_records_all_that_compare_asks_for(params: dict[str, object]) -> None:
    sides = [f"{name}_{field}" for name in ("tf", "torch") for field in PARITY_SIDE_FIELDS]

    assert {*PARITY_FIELDS, *sides, "hardware", "seed", "code_sha256"} <= set(params)
    assert params["tf_framework_version"] == "tf 1.0"
    assert params["torch_strategy"] == "ddp"
    assert not {"steps", "batch_size_per_worker", "config_sha256"} & set(params)


def test_the_same_inputs_and_code_need_no_second_proof(params: dict[str, object]) -> None:
    passed = verdict_on(params)

    assert find_passed([passed], params) is passed
    assert find_passed([], params) is None


@pytest.mark.parametrize(
    "field",
    ["workload", "optimizer", "precision", "hardware", "tf_software_build", "seed", "code_sha256"],
)
def test_other_inputs_or_code_need_another_proof(params: dict[str, object], field: str) -> None:
    assert find_passed([verdict_on({**params, field: "another"})], params) is None


def test_a_less_thorough_proof_is_not_reused_a_more_thorough_one_is(
    params: dict[str, object],
) -> None:
    more = {"parity_steps": 200, "parity_workers": "1, 2, 4", "parity_floor_runs": 3}

    for name, value in more.items():
        assert find_passed([verdict_on(params)], {**params, name: value}) is None
        assert find_passed([verdict_on({**params, name: value})], params)


def test_a_later_failure_undoes_a_pass(params: dict[str, object]) -> None:
    passed, failed = verdict_on(params), verdict_on(params, passed=False, start=1)

    assert find_passed([passed, failed], params) is None
    assert find_passed([failed, replace(passed, start_time=2.0)], params)
    assert find_passed([replace(passed, status="FAILED")], params) is None


def test_the_codes_digest_changes_with_any_source_file(tmp_path: Path) -> None:
    for package in ("pipelines", "tf_pipeline", "torch_pipeline"):
        (tmp_path / package / "deep").mkdir(parents=True)
        (tmp_path / package / "deep" / "file.py").write_text("a = 1\n")
    seen = {code_digest(tmp_path)}
    (tmp_path / "tf_pipeline" / "deep" / "file.py").write_text("a = 2\n")
    seen.add(code_digest(tmp_path))
    (tmp_path / "pipelines" / "notes.txt").write_text("not code")
    assert code_digest(tmp_path) in seen
    assert len(seen) == 2
    assert len(code_digest(PROJECT_ROOT)) == 64


def test_a_framework_that_cannot_be_imported_is_named(
    config: Config, frameworks: object, tmp_path: Path
) -> None:
    (tmp_path / "tf_pipeline" / "strategy.py").write_text("import no_such_module\n")

    with pytest.raises(WorkError, match=r"tf_pipeline .*no_such_module"):
        describe_frameworks(config)


def test_a_framework_is_asked_once(config: Config, frameworks: object, tmp_path: Path) -> None:
    said = describe_frameworks(config)
    assert said["tf"] == {
        "framework_version": "tf 1.0",
        "software_build": "cpu",
        "python_version": platform.python_version(),
    }

    (tmp_path / "tf_pipeline" / "strategy.py").write_text("import no_such_module\n")

    assert describe_frameworks(config) == said


def test_a_kept_proof_is_read_back_whole_unless_its_file_is_gone(
    config: Config, digits: Dataset, frameworks: object, capfd: pytest.CaptureFixture[str]
) -> None:
    verdict = actions.parity(config, Narrator())
    assert verdict.mlflow_run_id is not None
    capfd.readouterr()

    assert read(config, verdict.mlflow_run_id) == verdict
    assert capfd.readouterr().err == ""  # of MLflow's progress bars, none

    [file] = (config.output / "artifacts").rglob("parity.json")
    file.write_text('{"of": "another version"}')
    assert read(config, verdict.mlflow_run_id) is None
    file.unlink()
    assert read(config, verdict.mlflow_run_id) is None


def test_a_proof_is_tracked_with_its_files_and_satisfies_compare(
    config: Config, digits: Dataset, frameworks: object
) -> None:
    from mlflow import MlflowClient

    verdict = actions.parity(config, Narrator())

    [run] = read_runs(config)
    assert (run.kind, run.status, run.run_id) == ("parity", "FINISHED", verdict.mlflow_run_id)
    assert run.metrics[PARITY_PASSED] == 1
    assert run.metrics["tf_x1_torch_x1/loss"] == 0
    client = MlflowClient(config.tracking_uri)
    assert {each.path for each in client.list_artifacts(run.run_id)} == {
        "parity.html", "parity.json",
    }  # fmt: skip
    assert json.loads((config.output / "parity" / "parity.json").read_text())["passed"]
    cells = [
        RunRecord(
            name,
            name,
            "FINISHED",
            0.0,
            params={
                **{field: run.params[field] for field in PARITY_FIELDS},
                **{field: run.params[f"{name}_{field}"] for field in PARITY_SIDE_FIELDS},
                "framework": name,
            },
        )
        for name in ("tf", "torch")
    ]
    assert check_parity(cells, [run]) == [run]


def test_run_reuses_a_proof_and_refuses_a_failed_one(
    load_quickstart: Load,
    digits: Dataset,
    frameworks: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = load_quickstart("study.workers=[1]")
    actions._ensure_parity(config, digits, "", Narrator())
    [proof] = read_runs(config)
    actions._ensure_parity(config, digits, "", Narrator())

    assert len(read_runs(config)) == 1
    assert f"reused: run {proof.run_id}" in capfd.readouterr().err

    frameworks(tf="loss[2:] *= 1.1")
    with pytest.raises(ComparisonRefusedError, match="at step 3"):
        actions._ensure_parity(load_quickstart("training.seed=1"), digits, "", Narrator())


def test_a_study_of_builds_of_two_classes_is_refused_before_its_proof(
    config: Config, digits: Dataset, frameworks: object, tmp_path: Path
) -> None:
    strategy = tmp_path / "torch_pipeline" / "strategy.py"
    strategy.write_text(strategy.read_text().replace("'cpu'", "'cuda13'"))

    with pytest.raises(ComparisonRefusedError) as refusal:
        actions.study(config, "20260101T000000Z", Narrator())

    assert str(refusal.value) == (
        "software_build differs (tf: cpu, torch: cuda13), so that what is measured would not be "
        "compared; give both frameworks builds of one class, or set training.device: cpu"
    )
    assert refusal.value.differences == {"software_build": ["cpu", "cuda13"]}
    assert not (config.output / "mlflow.db").exists()


def test_the_command_prints_the_verdict_and_ends_with_code_3_if_it_failed(
    digits: Dataset,
    config: Config,
    frameworks: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    frameworks(torch="loss[5:] *= 1.01")
    resolved = config.dump(config.output / "resolved.yaml")
    asked = ["parity", "--config", str(resolved), "--workers", "1,2", "--steps", "8", "--json"]

    with pytest.raises(ComparisonRefusedError, match="loss first at step 6"):
        app(asked, standalone_mode=False)

    said = capfd.readouterr()
    printed = json.loads(said.out)
    assert (printed["passed"], printed["workers"], printed["steps"]) == (False, [1, 2], 8)
    assert "✗ parity" in said.err
    assert "differ in loss first at step 6" in said.err
