"""A tracked run as the rest of the program sees it, free of MLflow's own types.

Eight kinds of run live in a study's experiment: ``cell`` (one training run of the matrix),
``train`` (one outside any matrix), ``pipeline`` (one execution of a framework's DAG), ``parity``
(one verdict on whether both frameworks compute the same), ``anatomy`` (what a cell's step
consists of), ``recovery`` (what getting over a fault costs), ``ledger`` (what keeping one
framework's side costs) and ``summary`` (what ``compare`` concluded).
"""

import json
import re
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "ALL_REDUCE_TAG",
    "ATTEMPT_TAG",
    "COMPARABLE_FIELDS",
    "COMPONENTS_TAG",
    "COMPONENT_STARTUP_TAG",
    "COMPONENT_WORK_TAG",
    "FAULT_TAG",
    "KIND_TAG",
    "NOT_CHECKED_TAG",
    "PARITY_FIELDS",
    "PARITY_PASSED",
    "PARITY_SIDE_FIELDS",
    "PREEMPTED_TAG",
    "RESUMED_TAG",
    "SLOWEST_WORKER_TAG",
    "STUDY_TAG",
    "RunKind",
    "RunRecord",
    "batch_field",
    "comparable_fields",
    "shown",
]

_HASH = re.compile(r"[0-9a-f]{32,}")

RunKind = Literal["cell", "train", "pipeline", "parity", "anatomy", "recovery", "ledger", "summary"]

KIND_TAG = "tandem.kind"
STUDY_TAG = "tandem.study_id"
"""Which execution of the study a run belongs to; sorts by time."""
COMPONENTS_TAG = "tandem.components"
"""On a pipeline's run: JSON, DAG component -> seconds."""
COMPONENT_WORK_TAG = "tandem.component_work"
"""On a pipeline's run: JSON, DAG component -> seconds of its own work."""
COMPONENT_STARTUP_TAG = "tandem.component_startup"
"""On a pipeline's run: JSON, DAG component -> seconds from its start to its own work."""
SLOWEST_WORKER_TAG = "tandem.slowest_worker"
"""On a training run: JSON, ``rank`` and ``phases`` of the worker whose first step ended last."""
FAULT_TAG = "tandem.fault"
"""On a run of recovery: what was done to it."""
NOT_CHECKED_TAG = "tandem.not_checked"
"""On a ledger's run: JSON, metric -> why there is none."""
ALL_REDUCE_TAG = "tandem.all_reduce"
"""On an anatomy's run: JSON, bytes of a vector -> seconds of its all-reduce."""
ATTEMPT_TAG = "tandem.attempt"
"""On a cell's run that had to be begun again: which attempt it is, counted from 1."""
PREEMPTED_TAG = "tandem.preempted"
"""The step after which a run was last asked to end, and saved."""
RESUMED_TAG = "tandem.resumed"
"""On a run that has gone on: JSON, the parameters in which it differs from how it began."""

COMPARABLE_FIELDS: tuple[str, ...] = (
    "dataset_fingerprint",
    "workload",
    "gradient_accumulation",
    "steps",
    "warmup_steps",
    "optimizer",
    "schedule",
    "precision",
    "compile",
    "activation_checkpointing",
    "seed",
    "reader",
    "threads_per_worker",
    "hardware",
    "network",
    "software_build",
    "code_sha256",
)
"""Parameters that must agree before two runs are compared, besides the batch's size.
``software_build`` is the class of build (``cpu``, ``cuda12``), not a version: versions differ by
nature. ``code_sha256`` is of this project's own code, both sides' and the shared."""

PARITY_FIELDS: tuple[str, ...] = (
    "dataset_fingerprint",
    "workload",
    "gradient_accumulation",
    "optimizer",
    "schedule",
    "precision",
    "compile",
    "activation_checkpointing",
    "code_sha256",
)
"""Parameters in which a verdict of parity must agree with the runs that rest on it."""
PARITY_SIDE_FIELDS: tuple[str, ...] = (
    "strategy",
    "strategy_options",
    "framework_version",
    "software_build",
)
"""The same, of each framework; a verdict records them as ``tf_strategy`` and so on."""
PARITY_PASSED = "parity_passed"
"""A verdict's metric: 1 or 0."""


def batch_field(scaling: str) -> str:
    """The size that a kind of scaling holds fixed."""
    return "global_batch_size" if scaling == "strong" else "batch_size_per_worker"


def comparable_fields(scaling: str) -> tuple[str, ...]:
    """What must agree between runs of one kind of scaling."""
    return (*COMPARABLE_FIELDS, batch_field(scaling))


def shown(value: str) -> str:
    """A parameter's value in a message: a hash by its first digits; else whole, on one line."""
    return f"{value[:12]}.." if _HASH.fullmatch(value) else " ".join(value.split())


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
    experiment_id: str = ""
    """MLflow's, of the study that the run is part of."""

    @property
    def timed_steps(self) -> int:
        """Steps that its speed figures are taken from."""
        return int(self.params["steps"]) - int(self.params["warmup_steps"])

    def figures_of(self, tag: str) -> dict[str, float]:
        """A tag's JSON of figures by name; a detail, so empty if it cannot be read."""
        try:
            return {str(name): float(value) for name, value in json.loads(self.tags[tag]).items()}
        except (AttributeError, KeyError, TypeError, ValueError):
            return {}

    @property
    def interruption(self) -> str:
        """Why it is no whole measurement though it may have finished; empty if it is one."""
        if PREEMPTED_TAG in self.tags or self.metrics.get("restarts", 0) > 0:
            return "was interrupted, so that it has no honest clock"
        if RESUMED_TAG in self.tags:
            return "went on as something else than it began as"
        return ""

    @property
    def kind(self) -> str:
        """Which of the eight kinds this is, or an empty string for a stranger's run."""
        return self.tags.get(KIND_TAG, "")
