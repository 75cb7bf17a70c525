import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import Config

STAGES = {
    "train": [],
    "step": ["--dataset", "d", "--transformed", "t", "--transform-fn", "f"],
    "pipeline": [],
    "compile": ["--image", "i", "--dataset", "d", "--artifacts", "a", "--serving", "s"],
    "transform": [],
}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "torch_pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_names_every_stage() -> None:
    finished = run("--help")

    assert finished.returncode == 0
    assert finished.stderr == ""
    for stage in STAGES:
        assert f" {stage} " in finished.stdout


def test_help_needs_no_framework() -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['torch'] = sys.modules['lightning'] = sys.modules['kfp'] = None\n"
        "sys.argv = ['torch_pipeline', 'train', '--help']\n"
        "runpy.run_module('torch_pipeline', run_name='__main__')\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert finished.returncode == 0, finished.stderr
    assert "--transformed" in finished.stdout


@pytest.mark.parametrize("stage", ["train", "step"])
def test_a_slurm_task_that_is_not_understood_is_refused_in_one_line(
    stage: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, output = config.dump(tmp_path / "config.yaml"), tmp_path / "output"
    monkeypatch.setenv("SLURM_STEP_ID", "0")

    finished = run(stage, "--config", str(resolved), "--output", str(output), *STAGES[stage])

    assert finished.returncode == 2
    assert finished.stderr.startswith("error: environment: SLURM_*: not understood")
    assert len(finished.stderr.splitlines()) == 1
    assert not output.exists()


@pytest.mark.parametrize("stage", STAGES)
def test_a_wrong_config_ends_a_stage_with_one_line_and_exit_code_2(
    stage: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: quickstart\ntraining: {step: 3}\n")

    finished = run(
        stage, "--config", str(wrong), "--output", str(tmp_path / "output"), *STAGES[stage]
    )

    assert finished.returncode == 2
    assert finished.stderr == (
        f"error: {wrong}: training.step: unknown key; did you mean 'steps'?\n"
    )
    assert not (tmp_path / "output").exists()


def test_a_stage_without_its_dataset_ends_with_exit_code_2(config: Config, tmp_path: Path) -> None:
    lost = config.model_copy(update={"output": tmp_path / "nowhere"})
    resolved = lost.dump(tmp_path / "config.yaml")

    finished = run("transform", "--config", str(resolved), "--output", str(tmp_path / "output"))

    assert finished.returncode == 2
    manifest = tmp_path / "nowhere" / "data" / "manifest.json"
    assert finished.stderr.splitlines()[-1] == (
        f"error: {manifest}: no such dataset; make it with `tandem ingest`"
    )


def test_an_unknown_stage_ends_with_exit_code_2() -> None:
    finished = run("tune")

    assert finished.returncode == 2
    assert "No such command 'tune'" in finished.stderr
