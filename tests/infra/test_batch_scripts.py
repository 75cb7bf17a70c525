import os
import subprocess
from pathlib import Path

import pytest

from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS

SRUN = """#!/bin/sh
printf '%s\\n' "$@" "OMP_NUM_THREADS=$OMP_NUM_THREADS" \
  "TORCHINDUCTOR_CACHE_DIR=$TORCHINDUCTOR_CACHE_DIR" "TRITON_CACHE_DIR=$TRITON_CACHE_DIR"
"""


def srun_of(framework: str, folder: Path, **variables: str) -> list[str]:
    """What the batch script tells srun, and what stands in its environment."""
    (folder / "srun").write_text(SRUN)
    (folder / "srun").chmod(0o755)
    ended = subprocess.run(
        [PROJECT_ROOT / "infra" / "slurm" / f"{framework}.sbatch", "config.yaml", folder / "out"],
        env={**os.environ, **variables, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.splitlines()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_task_gets_the_cores_that_the_job_asked_for(framework: str, tmp_path: Path) -> None:
    told = srun_of(framework, tmp_path, SLURM_CPUS_PER_TASK="8")

    # Slurm's own variable no longer tells srun (22.05): a task would get one core for 8 threads.
    assert "--cpus-per-task=8" in told[: told.index("--config")]
    assert "OMP_NUM_THREADS=8" in told


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_compilers_keep_on_disk_is_the_jobs_own(framework: str, tmp_path: Path) -> None:
    first, second, again = (
        {line for line in srun_of(framework, tmp_path, **job) if "_CACHE_DIR=" in line}
        for job in (
            {"SLURM_JOB_ID": "7"},
            {"SLURM_JOB_ID": "8"},
            {"SLURM_JOB_ID": "8", "SLURM_RESTART_COUNT": "1"},
        )
    )

    assert len(first) == len(second) == len(again) == 2
    assert len(first | second | again) == 6
