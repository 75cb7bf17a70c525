"""Every metric that Tandem logs: its name, unit, meaning, and reduction over the workers.

Both frameworks log exactly these names. A phase is a stretch of a worker's wall clock; phases do
not overlap, so a worker's phases add up to its life less what no phase claims.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "PHASES", "Metric", "reduce_over_workers"]

Group = Literal[
    "learning",
    "speed",
    "phase",
    "goodput",
    "resource",
    "operation",
    "recovery",
    "anatomy",
    "pipeline",
    "maintenance",
    "cost",
]
Reduction = Literal["chief", "max", "mean", "sum"]

_REDUCERS: dict[Reduction, Callable[[Sequence[float]], float]] = {
    "chief": lambda values: values[0],
    "max": max,
    "mean": statistics.fmean,
    "sum": sum,
}


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    unit: str
    group: Group
    reduction: Reduction
    """How the workers' values become the run's: ``chief`` takes rank 0's, which is global."""
    meaning: str
    better: Literal["more", "less", ""] = ""
    """Which way a model improves, for metrics that it can be held to."""


def _table(*rows: Metric) -> dict[str, Metric]:
    return {row.name: row for row in rows}


METRICS: dict[str, Metric] = _table(
    Metric("train_loss", "nats", "learning", "chief",
           "mean cross-entropy over the global batch of one step, before its update", "less"),
    Metric("eval_loss", "nats", "learning", "chief",
           "mean cross-entropy over the whole eval split, after the last step", "less"),
    Metric("eval_accuracy", "share", "learning", "chief",
           "correctly classified share of the eval split, after the last step", "more"),
    Metric("eval_perplexity", "tokens", "learning", "chief",
           "exponential of eval_loss: how many equally likely tokens are as uncertain", "less"),
    Metric("eval_auc", "share", "learning", "chief",
           "area under the ROC curve over the whole eval split, exact, after the last step",
           "more"),
    Metric("examples_per_second", "1/s", "speed", "chief",
           "global batch x timed steps / train_seconds; timed steps exclude the warm-up"),
    Metric("tokens_per_second", "1/s", "speed", "chief",
           "examples_per_second x tokens predicted per example, of a text"),
    Metric("step_seconds", "s", "speed", "chief",
           "train_seconds / timed steps"),
    Metric("scaling_efficiency", "share", "speed", "chief",
           "examples_per_second over the base case's, divided by the workers' ratio; 1 is ideal"),
    Metric("start_seconds", "s", "phase", "chief",
           "from the start of the process to the first line of the program: the interpreter"),
    Metric("import_seconds", "s", "phase", "chief",
           "from the first line of the program until the framework is imported"),
    Metric("tracking_seconds", "s", "phase", "chief",
           "importing MLflow, opening the run, logging parameters and the dataset"),
    Metric("rendezvous_seconds", "s", "phase", "chief",
           "building the strategy until all workers have met"),
    Metric("build_seconds", "s", "phase", "chief",
           "opening the dataset, building model and optimiser, loading initial weights"),
    Metric("restore_seconds", "s", "phase", "chief",
           "giving model and optimiser the state of a checkpoint"),
    Metric("first_step_seconds", "s", "phase", "chief",
           "the first optimiser step: tracing, compiling, allocating"),
    Metric("warmup_seconds", "s", "phase", "chief",
           "the other warm-up steps"),
    Metric("train_seconds", "s", "phase", "chief",
           "the timed steps, the device fenced on both sides of the clock"),
    Metric("checkpoint_seconds", "s", "phase", "chief",
           "between steps: saving, or under asynchronous saving copying, which is no step's time"),
    Metric("evaluate_seconds", "s", "phase", "chief",
           "evaluation on the whole eval split"),
    Metric("report_seconds", "s", "phase", "chief",
           "gathering and logging the results"),
    Metric("exit_seconds", "s", "phase", "chief",
           "leaving the training loop; and from rank 0's last word to the end of the last process"),
    Metric("time_to_first_step_seconds", "s", "goodput", "max",
           "from the start of a worker's process to the end of its first step"),
    Metric("goodput_share", "share", "goodput", "chief",
           "goodput_seconds over wall_seconds"),
    Metric("goodput_seconds", "s", "goodput", "chief",
           "steps that count: neither waiting for data, nor agreeing, nor done again later"),
    Metric("badput_initialisation_seconds", "s", "goodput", "chief",
           "start, import, rendezvous, build, and what the first step takes beyond a timed one"),
    Metric("badput_data_wait_seconds", "s", "goodput", "chief",
           "steps' waiting for their batch, of all steps that count"),
    Metric("badput_checkpoint_save_seconds", "s", "goodput", "chief",
           "saving that holds up training"),
    Metric("badput_checkpoint_restore_seconds", "s", "goodput", "chief",
           "finding, checking and loading a checkpoint"),
    Metric("badput_wasted_steps_seconds", "s", "goodput", "chief",
           "steps of failed attempts that no checkpoint kept, and what those attempts ended with"),
    Metric("badput_evaluation_seconds", "s", "goodput", "chief",
           "evaluation on the eval split"),
    Metric("badput_tracking_seconds", "s", "goodput", "chief",
           "opening the run in MLflow, and logging to it"),
    Metric("badput_barrier_seconds", "s", "goodput", "chief",
           "rank 0's waiting for the others outside a step: at the rendezvous, to agree, at the "
           "end"),
    Metric("badput_shutdown_seconds", "s", "goodput", "chief",
           "leaving the training loop, ending the processes"),
    Metric("data_wait_seconds", "s", "resource", "max",
           "the part of train_seconds spent waiting for the next batch"),
    Metric("peak_memory_bytes", "B", "resource", "max",
           "largest resident set of a worker process"),
    Metric("cpu_seconds", "s", "resource", "sum",
           "processor time of all workers and of all that they started, until evaluation has "
           "ended"),
    Metric("wall_seconds", "s", "resource", "chief",
           "from starting the first worker process to the end of the last, by the launcher"),
    Metric("network_bytes", "B", "resource", "sum",
           "sent by the hosts' interfaces during the timed steps, loopback included"),
    Metric("energy_joules", "J", "resource", "sum",
           "used by the hosts' processors and GPUs during the timed steps, where they tell"),
    Metric("processes", "count", "operation", "chief",
           "operating-system processes of a run, soon after its first step"),
    Metric("listening_ports", "count", "operation", "chief",
           "TCP ports on which these listen"),
    Metric("environment_variables", "count", "operation", "chief",
           "variables that the launcher sets for a worker"),
    Metric("restarts", "count", "recovery", "chief",
           "how often all workers were started again after one had failed"),
    Metric("lost_steps", "count", "recovery", "chief",
           "steps done, as far as the workers had said, and done again after a restart"),
    Metric("recovery_seconds", "s", "recovery", "chief",
           "from noticing failures to the first new steps after them"),
    Metric("notice_seconds", "s", "recovery", "chief",
           "from a fault that was done on purpose to noticing it"),
    Metric("lone_step_seconds", "s", "anatomy", "max",
           "a step of as many workers side by side, each training by itself without collectives"),
    Metric("lone_data_wait_seconds", "s", "anatomy", "max",
           "the part of lone_step_seconds spent waiting for the next batch"),
    Metric("compute_step_seconds", "s", "anatomy", "max",
           "forward, backward and update on one batch in memory, nothing around them"),
    Metric("all_reduce_latency_seconds", "s", "anatomy", "chief",
           "a message between neighbours, by a ring's formula fitted to timed all-reduces"),
    Metric("all_reduce_seconds_per_byte", "s/B", "anatomy", "chief",
           "sending a byte to a neighbour, by the same formula"),
    Metric("pipeline_seconds", "s", "pipeline", "chief",
           "the framework's whole DAG, from start of its process to its end"),
    Metric("validate_stage_seconds", "s", "pipeline", "chief",
           "DAG stage: reading examples, statistics, schema, validation"),
    Metric("transform_stage_seconds", "s", "pipeline", "chief",
           "DAG stage: fitting the transform and applying it to every split"),
    Metric("train_stage_seconds", "s", "pipeline", "chief",
           "DAG stage: training and exporting"),
    Metric("evaluate_stage_seconds", "s", "pipeline", "chief",
           "DAG stage: evaluating the exported model and deciding on its blessing"),
    Metric("push_stage_seconds", "s", "pipeline", "chief",
           "DAG stage: publishing the blessed model"),
    Metric("cached_stages", "count", "pipeline", "chief",
           "DAG components answered from the cache instead of being run"),
    Metric("pipeline_work_seconds", "s", "pipeline", "chief",
           "the components' own work: their code, once it and all that it imports is loaded"),
    Metric("pipeline_startup_seconds", "s", "pipeline", "chief",
           "from the orchestrator's starting a component to its own work, all added up"),
    Metric("pipeline_overhead_seconds", "s", "pipeline", "chief",
           "pipeline_seconds less pipeline_work_seconds"),
    Metric("pipeline_processes", "count", "pipeline", "chief",
           "processes that the DAG's own process started for its components, or pods"),
    Metric("blessed", "0 or 1", "pipeline", "chief",
           "whether the exported model met every threshold"),
    Metric("direct_dependencies", "count", "maintenance", "chief",
           "packages that the project itself asks for, on the framework's side"),
    Metric("total_dependencies", "count", "maintenance", "chief",
           "these and all packages that they require in turn, as installed"),
    Metric("install_bytes", "B", "maintenance", "chief",
           "the files of total_dependencies"),
    Metric("image_bytes", "B", "maintenance", "chief",
           "the framework's container image, as the engine keeps it, by `make images`"),
    Metric("image_build_seconds", "s", "maintenance", "chief",
           "building that image, no layer from the cache"),
    Metric("bounded_requirements", "count", "maintenance", "chief",
           "requirements of these packages on each other that have an upper bound"),
    Metric("held_back_share", "share", "maintenance", "chief",
           "those of bounded_requirements that exclude the newest final release"),
    Metric("resolvable_share", "share", "maintenance", "chief",
           "platforms that its own requirements can be met on, of 4 Pythons x 2 ages of glibc"),
    Metric("libyears_behind", "years", "maintenance", "chief",
           "from each package's installed release to its newest final one, added up"),
    Metric("days_since_release", "days", "maintenance", "chief",
           "since the last release of the direct dependency that has had none for longest"),
    Metric("known_vulnerabilities", "count", "maintenance", "chief",
           "of these packages as installed, by pip-audit"),
    Metric("deprecation_warnings", "count", "maintenance", "chief",
           "distinct ones that these packages gave while the twin's tests ran"),
    Metric("code_lines", "lines", "maintenance", "chief",
           "the framework's twin, without blank lines, comments and docstrings"),
    Metric("cyclomatic_complexity", "count", "maintenance", "chief",
           "McCabe's number of the twin's functions, added up"),
    Metric("glue_share", "share", "maintenance", "chief",
           "those of code_lines that tie training to processes, hosts, storage, an orchestrator"),
    Metric("config_fields", "count", "maintenance", "chief",
           "fields of the framework's section of the configuration"),
    Metric("manifest_lines", "lines", "maintenance", "chief",
           "the framework's DAG as compiled for Kubeflow, and its batch script for Slurm"),
    Metric("cost_per_run", "currency", "cost", "chief",
           "wall_seconds of a training run, at the price of its machine"),
    Metric("cost_per_million_examples", "currency", "cost", "chief",
           "cost_per_run over the run's examples in millions, warm-up included"),
    Metric("cost_per_model", "currency", "cost", "chief",
           "a model that meets the workload's thresholds: the following four, added up"),
    Metric("cost_compute", "currency", "cost", "chief",
           "of a model: goodput_seconds of as many runs as it takes"),
    Metric("cost_lost_goodput", "currency", "cost", "chief",
           "of a model: the other seconds of these runs"),
    Metric("cost_pipeline_overhead", "currency", "cost", "chief",
           "of a model: pipeline_overhead_seconds of its DAG"),
    Metric("cost_maintenance", "currency", "cost", "chief",
           "of a model: its share of an engineer's year, estimated from the ledger"),
)  # fmt: skip

PHASES: tuple[str, ...] = tuple(name for name, metric in METRICS.items() if metric.group == "phase")
"""The phases in the order in which a worker goes through them."""


def reduce_over_workers(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One value per metric from each worker's values, rank 0 first.

    Raises:
        KeyError: for a name that the table does not know; add it to the table first.
    """
    names = [name for name in METRICS if name in values[0]]
    unknown = set(values[0]) - set(names)
    if unknown:
        raise KeyError(f"not in the metrics table: {', '.join(sorted(unknown))}")
    return {
        name: _REDUCERS[METRICS[name].reduction]([worker[name] for worker in values])
        for name in names
    }
