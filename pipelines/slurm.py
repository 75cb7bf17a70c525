"""Slurm's view of a job step, in the variables that each framework's users know.

``srun`` gives every task its place in ``SLURM_*``; torchrun's variables and ``TF_CONFIG`` say the
same in the words that both frameworks read.
"""

import json
import re
import subprocess
from collections.abc import Mapping

from pipelines.errors import InputError
from pipelines.strategies import Framework
from pipelines.worker import RANK_VARIABLES

__all__ = ["slurm_variables"]

_FIRST_PORT = 20_000
_JOBS_TOLD_APART = 2_000
_PORTS_PER_JOB = 16
"""Tasks of one job on one host; jobs that share a host mostly differ in their ports."""


def slurm_variables(framework: Framework, environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a task that ``srun`` started; nothing for any other.

    Torchrun's variables, or ``TF_CONFIG`` with a worker per task. What says a rank already is
    left alone, since somebody else has launched this process.

    Raises:
        InputError: if Slurm's variables cannot be understood.
    """
    if "SLURM_STEP_ID" not in environment or any(name in environment for name in RANK_VARIABLES):
        return {}
    try:
        rank = int(environment["SLURM_PROCID"])
        local_rank = int(environment["SLURM_LOCALID"])
        node = int(environment["SLURM_NODEID"])
        job = int(environment["SLURM_JOB_ID"])
        tasks = _tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
        hosts = _hosts(environment["SLURM_STEP_NODELIST"])
        if len(hosts) != len(tasks):
            raise ValueError(f"{len(hosts)} hosts, but {len(tasks)} counts of tasks")
        local_workers = tasks[node]
    except (KeyError, ValueError, IndexError, OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"environment: SLURM_*: not understood ({error!r})") from None
    port = _FIRST_PORT + _PORTS_PER_JOB * (job % _JOBS_TOLD_APART)
    if framework == "tf":
        workers = [
            f"{host}:{port + place}"
            for host, count in zip(hosts, tasks, strict=True)
            for place in range(count)
        ]
        task = {"type": "worker", "index": rank}
        return {
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task}),
            "LOCAL_RANK": str(local_rank),
        }
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "GROUP_RANK": str(node),
        "WORLD_SIZE": str(sum(tasks)),
        "LOCAL_WORLD_SIZE": str(local_workers),
        "MASTER_ADDR": environment.get("MASTER_ADDR", hosts[0]),
        "MASTER_PORT": environment.get("MASTER_PORT", str(port)),
    }


def _tasks_per_node(text: str) -> list[int]:
    """Of ``2(x3),1``: two tasks on each of three nodes, and one on the fourth."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={text}")
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def _hosts(nodelist: str) -> list[str]:
    """Of ``node[01-03]``, by Slurm's own tool, which is wherever a task runs."""
    shown = subprocess.run(
        ["scontrol", "show", "hostnames", nodelist], capture_output=True, text=True, check=True
    )
    return shown.stdout.split()
