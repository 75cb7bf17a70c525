"""What ``report.json`` holds: the conclusions of one study, in plain data.

Every figure in the HTML page and on the terminal is read from here, so a reader of the JSON
misses nothing. ``null`` always means "not known", never zero.
"""

from typing import Literal

from pipelines.compare.cost import Cost
from pipelines.compare.law_model import Law
from pipelines.compare.maintenance import Maintenance
from pipelines.compare.overhead_model import Overhead
from pipelines.compare.part import Interval, Part
from pipelines.compare.prediction_model import Prediction
from pipelines.compare.scorecard import Scorecard
from pipelines.parity.model import Parity
from pipelines.strategies import Framework

__all__ = [
    "Cell",
    "Dataset",
    "Difference",
    "Environment",
    "Finding",
    "FittedLaw",
    "Interval",
    "PipelineRun",
    "Report",
    "ScalingPoint",
    "Settings",
    "Software",
    "StepSplit",
    "Unfinished",
    "Verdict",
]

Verdict = Literal["torch faster", "tf faster", "no significant difference"]


class Finding(Part):
    """One answer, in plain language."""

    topic: str
    """The question, in two or three words."""
    headline: str
    """The answer, in as few."""
    statement: str
    """The answer as full sentences, with its figures."""


class Dataset(Part):
    """What all compared runs trained on."""

    fingerprint: str | None
    """SHA-256 over the ingested dataset's manifest."""
    rows: int | None = None
    """Examples in all splits."""
    source: str | None = None
    """Where the raw data came from."""


class Software(Part):
    """The software of one framework's runs, as they recorded it."""

    framework: Framework
    framework_version: str | None = None
    software_build: str | None = None
    """The class of build, such as ``cpu`` or ``cuda12``."""
    python_version: str | None = None
    mlflow_run_ids: list[str]
    """The runs that had it."""


class Environment(Part):
    """What all compared runs ran on."""

    hardware: str | None = None
    software: list[Software] = []
    """By framework, oldest first: more than one of a framework if its runs' versions differ."""


class Settings(Part):
    """What all compared runs had in common."""

    workload: str | None = None
    """Model family and preset, such as ``vision/tiny``."""
    threads_per_worker: int | None = None
    batch_size_per_worker: int | None = None
    """Weak scaling: examples per worker and step."""
    global_batch_size: int | None = None
    """Strong scaling: examples per step over all workers."""
    reader: str | None = None
    """``shared``: Tandem's batch stream on both sides; ``native``: each framework's own."""
    steps: int | None = None
    """Optimiser steps, warm-up included."""
    warmup_steps: int | None = None
    """First steps left out of every speed figure."""
    optimizer: str | None = None
    precision: str | None = None
    compile: str | None = None
    seed: int | None = None


class Cell(Part):
    """One cell of the matrix: its finished repeats, and their medians."""

    framework: Framework
    strategy: str
    workers: int
    scaling: str
    repeats: list[float]
    """Examples per second over all workers, in the order of the repeats; none is left out."""
    median: float
    """Median of the repeats, examples per second."""
    interval95: Interval | None
    """Bootstrap 95 % interval of the median, examples per second; null for one repeat."""
    phases: dict[str, float]
    """Phase -> median seconds, for the phases that were logged."""
    wall_seconds: float | None = None
    """Median seconds from starting the first worker to the end of the last."""
    time_to_first_step_seconds: float | None = None
    """Median seconds from the start of a process to the end of its first step, of the slowest
    worker."""
    goodput_share: float | None = None
    """Median share of the wall clock spent on steps that count."""
    step_seconds: float | None = None
    """Median seconds of one timed step."""
    data_wait_seconds: float | None = None
    """Median seconds of the timed steps spent waiting for a batch."""
    cpu_seconds: float | None = None
    """Median processor seconds of all workers."""
    train_loss: float | None = None
    """Median of the last logged training loss, nats."""
    eval_loss: float | None = None
    """Median loss on the eval split, nats."""
    eval_metrics: dict[str, float] = {}
    """Medians of the other metrics of evaluation: accuracy, perplexity, AUC."""
    peak_memory_bytes: float | None = None
    """Median over the repeats of the largest worker's resident set, bytes."""
    mlflow_run_ids: list[str]
    """The runs behind ``repeats``, in the same order."""


class ScalingPoint(Part):
    """Scaling of one framework and strategy, against its own base case."""

    framework: Framework
    strategy: str
    scaling: str
    workers: int
    base_workers: int
    """Worker count of the base case: the smallest that finished."""
    speedup: float
    """Median throughput over the base case's."""
    efficiency: float
    """speedup / (workers / base_workers); 1 is ideal."""
    interval95: Interval | None
    """Bootstrap 95 % interval of the efficiency; null for the base case, 1 by definition."""


class Difference(Part):
    """The two frameworks in the same place of the matrix."""

    workers: int
    scaling: str
    tf_strategy: str
    torch_strategy: str
    ratio: float
    """PyTorch's median examples per second over TensorFlow's."""
    interval95: Interval | None
    """Bootstrap 95 % interval of the ratio; null if a side has one repeat."""
    verdict: Verdict
    remark: str = ""
    """Why the verdict says little, where it does."""


class StepSplit(Part):
    """Where the time of one cell's step goes: four parts, which add up to it.

    Each is a difference of medians, and may be negative where it is small beside their spread.
    """

    framework: Framework
    strategy: str
    workers: int
    scaling: str
    step_seconds: float
    """Median seconds of one timed step."""
    compute_seconds: float
    """Forward, backward and update on a batch in memory."""
    host_seconds: float
    """What the framework's training loop adds to that."""
    input_seconds: float | None
    """Waiting for the next batch; null: not measured, and part of the others."""
    communication_seconds: float
    """What the workers' exchange adds, where no computation hides it."""
    mlflow_run_ids: list[str]
    """The anatomies behind it."""


class FittedLaw(Part):
    """The Universal Scalability Law of one framework and strategy."""

    framework: Framework
    strategy: str
    scaling: str
    law: Law


class PipelineRun(Part):
    """One execution of a framework's whole DAG."""

    seconds: float | None
    """The whole DAG, from start of its process to its end."""
    stages: dict[str, float]
    """Stage -> seconds."""
    components: dict[str, float]
    """The framework's own DAG components -> seconds, in the order they ran; may be empty."""
    cached_stages: int
    """Components answered from the cache; above 0, the seconds are not those of the work."""
    blessed: bool | None
    """Whether the exported model met every threshold."""
    eval_metrics: dict[str, float]
    """What evaluation found of the exported model, besides its loss."""
    mlflow_run_id: str


class Unfinished(Part):
    """A run that counts for nothing above, and why."""

    run_id: str
    name: str
    kind: Literal["cell", "pipeline"]
    status: str
    """MLflow's word: FAILED, KILLED, RUNNING, or FINISHED for a run without usable figures."""
    reason: str
    """Why it does not count."""
    retried: bool = False
    """Whether another run of the same repeat (or pipeline) finished."""


class Report(Part):
    """The whole of ``report.json``."""

    study: str
    """The study's name, which is also the MLflow experiment's."""
    study_id: str
    """Which execution of the study; empty if only pipelines ran."""
    created: str
    """When the report was made: ISO 8601, UTC."""
    findings: list[Finding]
    """The answers, most asked first."""
    dataset: Dataset
    environment: Environment
    settings: Settings
    cells: list[Cell]
    """By scaling, workers, framework, strategy."""
    scaling: list[ScalingPoint]
    differences: list[Difference]
    """Empty if only one framework ran."""
    splits: list[StepSplit]
    """Of the cells that were taken apart, in their order."""
    laws: list[FittedLaw]
    """Of the series with at least four worker counts."""
    prediction: Prediction | None
    """Worker counts that nobody measured; null if nothing says what communication costs."""
    pipelines: dict[Framework, PipelineRun]
    """Empty if no pipeline ran."""
    overhead: dict[Framework, Overhead] = {}
    """What running each side costs besides training; empty without cells."""
    maintenance: dict[Framework, Maintenance] = {}
    """What keeping each side costs; empty if no ledger was tracked."""
    cost: dict[Framework, Cost] = {}
    """The same in money; empty without prices."""
    scorecard: Scorecard | None = None
    """What of the usual criteria was measured; null without training runs."""
    failed: list[Unfinished]
    """Never dropped silently."""
    parity: list[Parity] = []
    """The verdicts that the comparison rests on, as far as their files are still there."""
    run_address: str | None = None
    """What the address of a run in MLflow begins with, its id follows; null: not one for all."""
    notes: list[str]
    """How to read the figures, and what they cannot tell."""
