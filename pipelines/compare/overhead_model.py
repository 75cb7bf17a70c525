"""What running each side costs besides training: start-up, goodput, pipelines, recovery, resources.

Of one framework it is told in one place: its fastest strategy at the most workers that both
frameworks reached, the same cells whose speed the findings tell.
"""

from pipelines.compare.part import Part
from pipelines.strategies import Framework

__all__ = ["Operation", "Overhead", "PipelineOverhead", "Recovery", "Resources"]


class PipelineOverhead(Part):
    """What the DAG costs beyond the work of its components."""

    seconds: float
    """The whole DAG."""
    cached_stages: int
    """Components answered from the cache; above 0, the figures are not those of the work."""
    work_seconds: float | None
    """The components' own work; null: not measured."""
    startup_seconds: float | None
    """From the orchestrator's starting a component to its own work, all added up."""
    overhead_seconds: float | None
    """The whole less the work."""
    component_startup: dict[str, float]
    """Component -> seconds from its start to its own work."""
    component_work: dict[str, float]
    """Component -> seconds of its own work."""
    cached_rerun_seconds: float | None
    """The whole DAG once more, every component answered from the cache; null: not run."""
    processes: int | None
    """That the DAG started for its components."""
    mlflow_run_ids: list[str]
    """The run, and the cached one."""


class Recovery(Part):
    """What it takes to get over a fault that was done to a run on purpose."""

    fault: str
    notice_seconds: float | None
    """From the fault to noticing it."""
    recovery_seconds: float
    """From noticing it to the first new step."""
    lost_steps: int
    """Done again."""
    mlflow_run_id: str


class Resources(Part):
    """What a training run uses; medians over its cell's repeats."""

    peak_memory_bytes: float | None
    """Of the largest worker."""
    network_bytes_per_step: float | None
    """Sent by all hosts' interfaces, loopback included."""
    cpu_seconds_per_million_examples: float | None
    """Processor time of all workers, start-up included, over what was trained."""
    joules_per_million_examples: float | None
    """Of processors and GPUs, where the machine tells."""


class Operation(Part):
    """What an operator has to know of; null: not measured."""

    processes: int | None
    """Operating-system processes of a training run."""
    listening_ports: int | None
    environment_variables: int | None
    """That the launcher sets for a worker."""
    config_fields: int | None
    """Of the framework's section of the configuration."""
    manifest_lines: int | None
    """Of the framework's compiled DAG and its batch script."""
    ledger_run_id: str | None
    """The ledger that has counted fields and lines."""


class Overhead(Part):
    """One framework's side."""

    framework: Framework
    strategy: str
    workers: int
    scaling: str
    first_step: dict[str, float]
    """Part -> median seconds, of the worker whose first step ended last: start, import, tracking,
    rendezvous, build, restore, compile (what the first step takes beyond a timed one), step."""
    time_to_first_step_seconds: float | None
    """Median over the repeats."""
    wall_seconds: float | None
    """Median over the repeats."""
    goodput_share: float | None
    """Median over the repeats."""
    goodput: dict[str, float]
    """Category -> median seconds: ``step``, and where the rest of the wall clock went
    (``initialisation``, ``data_wait``, ``checkpoint_save``, ``checkpoint_restore``,
    ``wasted_steps``, ``evaluation``, ``tracking``, ``barrier``, ``shutdown``)."""
    resources: Resources
    operation: Operation
    pipeline: PipelineOverhead | None
    recovery: Recovery | None
    mlflow_run_ids: list[str]
    """The cell's runs."""
