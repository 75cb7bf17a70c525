"""The batch scripts as Slurm would run them, with stand-ins for its two tools."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.config import load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import ingest
from pipelines.runs import KIND_TAG, STUDY_TAG
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.tracking import prepare_store

# Starts two tasks on one host, as `srun` with --ntasks-per-node=2 would.
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_JOB_ID=$$ SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_NODEID=0
export SLURM_STEP_NODELIST=localhost SLURM_STEP_TASKS_PER_NODE=2
SLURM_PROCID=0 SLURM_LOCALID=0 "$@" & first=$!
SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & second=$!
wait $first && wait $second
"""
SCONTROL = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] && echo "$3"
"""


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.both_frameworks,
]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_batch_script_trains_one_run_on_all_tasks(
    framework: Framework, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, result = tmp_path / "out", tmp_path / "result"
    small = ["steps=20", "warmup_steps=5", "batch_size_per_worker=16"]
    config = load_config(
        PROJECT_ROOT / "configs" / "quickstart.yaml",
        [f"output={output}", *(f"training.{setting}" for setting in small)],
    )
    ingest(config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    prepare_store(config)
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)

    ended = subprocess.run(
        [
            PROJECT_ROOT / "infra" / "slurm" / f"{framework}.sbatch",
            config.dump(tmp_path / "config.yaml"),
            result,
            *("--study-id", "20260131T120000Z", "--repeat", "1"),
        ],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    trained = json.loads((result / "result.json").read_text())
    assert len(trained["train_loss"]) == 20
    assert trained["train_loss"][-1] < trained["train_loss"][0]

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run = client.get_run(trained["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["workers"] == "2"
    assert run.data.params["global_batch_size"] == "32"
    assert (run.data.tags[KIND_TAG], run.data.params["repeat"]) == ("cell", "1")
    assert run.data.tags[STUDY_TAG] == "20260131T120000Z"
