"""Which worker this process is, read from the environment that launched it.

Both of the field's conventions are understood: torchrun's ``RANK``/``WORLD_SIZE`` and
TensorFlow's ``TF_CONFIG``. Without either, the process is a run's only worker.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.errors import InputError

__all__ = ["Worker"]


@dataclass(frozen=True)
class Worker:
    """One process of a training run."""

    rank: int = 0
    workers: int = 1

    @property
    def is_chief(self) -> bool:
        """Rank 0 speaks for the run: it alone writes parameters and learning metrics."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Worker":
        """The worker that the environment describes.

        Raises:
            InputError: if a variable is there but cannot be understood.
        """
        try:
            if "TF_CONFIG" in environment:
                described = json.loads(environment["TF_CONFIG"])
                cluster, task = described["cluster"], described["task"]
                if set(cluster) != {"worker"}:
                    raise ValueError(f"a cluster of workers alone is expected, not {list(cluster)}")
                worker = cls(rank=int(task["index"]), workers=len(cluster["worker"]))
            else:
                worker = cls(
                    rank=int(environment.get("RANK", "0")),
                    workers=int(environment.get("WORLD_SIZE", "1")),
                )
            if not 0 <= worker.rank < worker.workers:
                raise ValueError(f"rank {worker.rank} of {worker.workers}")
            return worker
        except (ValueError, KeyError, TypeError) as error:
            variable = "TF_CONFIG" if "TF_CONFIG" in environment else "RANK, WORLD_SIZE"
            raise InputError(f"environment: {variable}: not understood ({error!r})") from None
