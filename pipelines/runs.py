"""A tracked run as the rest of the program sees it, free of MLflow's own types.

Four kinds of run live in a study's experiment: ``cell`` (one training run of the matrix),
``train`` (one outside any matrix), ``pipeline`` (one execution of a framework's DAG) and
``summary`` (what ``compare`` concluded).
"""

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "COMPARABLE_FIELDS",
    "COMPONENTS_TAG",
    "KIND_TAG",
    "STUDY_TAG",
    "RunKind",
    "RunRecord",
]

RunKind = Literal["cell", "train", "pipeline", "summary"]

KIND_TAG = "tandem.kind"
STUDY_TAG = "tandem.study_id"
"""Which execution of the study a run belongs to; sorts by time."""
COMPONENTS_TAG = "tandem.components"
"""On a pipeline's run: JSON, DAG component -> seconds."""

COMPARABLE_FIELDS: tuple[str, ...] = (
    "dataset_fingerprint",
    "workload",
    "batch_size_per_worker",
    "steps",
    "warmup_steps",
    "optimizer",
    "precision",
    "compile",
    "seed",
    "reader",
    "threads_per_worker",
    "hardware",
    "software_build",
)
"""Parameters that must agree before two runs are compared (weak scaling). ``software_build`` is
the class of build (``cpu``, ``cuda12``), not a version: versions differ by nature."""


@dataclass(frozen=True)
class RunRecord:
    """One run as read back from the tracking store."""

    run_id: str
    name: str
    status: str
    """MLflow's word: RUNNING, FINISHED, FAILED, KILLED."""
    start_time: float
    """Seconds since the epoch."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Last value of each metric."""

    @property
    def kind(self) -> str:
        """Which of the four kinds this is, or an empty string for a stranger's run."""
        return self.tags.get(KIND_TAG, "")
