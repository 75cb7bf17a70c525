"""Which worker this process is, read from the environment that launched it.

Both of the field's conventions are understood: torchrun's ``RANK``/``WORLD_SIZE`` and
TensorFlow's ``TF_CONFIG``. Without either, the process is a run's only worker.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import InputError

__all__ = ["RANK_VARIABLES", "Role", "Worker"]

RANK_VARIABLES = ("TF_CONFIG", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""What says which worker a process is; a launcher's own must not reach those it starts."""

Role = Literal["worker", "coordinator", "server"]
"""``worker``: trains. Under parameter servers one ``coordinator`` runs the program, and the others
are ``server``: they hold variables, or compute what they are told."""


@dataclass(frozen=True)
class Worker:
    """One process of a training run."""

    rank: int = 0
    workers: int = 1
    """Processes that train."""
    replicas: int = 1
    """Copies of the model that each of them trains, on a device each."""
    role: Role = "worker"

    @property
    def all_replicas(self) -> int:
        """Copies of the model that the whole run trains; each has a batch of its own."""
        return self.workers * self.replicas

    @property
    def is_chief(self) -> bool:
        """Rank 0 speaks for the run: it alone writes parameters and learning metrics."""
        return self.rank == 0

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] = os.environ, replicas: int = 1
    ) -> "Worker":
        """The worker that the environment describes.

        Raises:
            InputError: if a variable is there but cannot be understood.
        """
        try:
            if "TF_CONFIG" in environment:
                worker = cls._of_cluster(json.loads(environment["TF_CONFIG"]), replicas)
            else:
                worker = cls(
                    rank=int(environment.get("RANK", "0")),
                    workers=int(environment.get("WORLD_SIZE", "1")),
                    replicas=replicas,
                )
            if worker.workers < 1 or worker.rank < 0:
                raise ValueError(f"rank {worker.rank} of {worker.workers}")
            if worker.role == "worker" and worker.rank >= worker.workers:
                raise ValueError(f"rank {worker.rank} of {worker.workers}")
            return worker
        except (ValueError, KeyError, TypeError) as error:
            variable = "TF_CONFIG" if "TF_CONFIG" in environment else "RANK, WORLD_SIZE"
            raise InputError(f"environment: {variable}: not understood ({error!r})") from None

    @classmethod
    def _of_cluster(cls, described: dict[str, Any], replicas: int) -> "Worker":
        """TensorFlow's view: tasks by type, a chief coming before the workers."""
        cluster, task = described["cluster"], described["task"]
        kind, index = task["type"], int(task["index"])
        sizes = {name: len(cluster[name]) for name in ("chief", "worker", "ps") if name in cluster}
        if set(cluster) - set(sizes) or kind not in sizes or not 0 <= index < sizes[kind]:
            raise ValueError(f"no task {kind} {index} in a cluster of {list(cluster)}")
        if sizes.get("chief", 1) != 1:
            raise ValueError("more than one chief")
        before = {"chief": 0, "worker": sizes.get("chief", 0)}
        before["ps"] = before["worker"] + sizes.get("worker", 0)
        rank = before[kind] + index
        if "ps" not in sizes:
            return cls(rank=rank, workers=before["ps"], replicas=replicas)
        if "chief" not in sizes:
            raise ValueError("parameter servers without a chief")
        role: Role = "coordinator" if kind == "chief" else "server"
        return cls(rank=rank, workers=sizes.get("worker", 0), replicas=replicas, role=role)
