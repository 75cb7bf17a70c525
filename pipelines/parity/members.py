"""The runs that a proof consists of, and running them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.launch import launch
from pipelines.parity.probe import Probe
from pipelines.parity.trace import TRACE_NAME, Trace
from pipelines.strategies import (
    ASYNCHRONOUS_STRATEGIES,
    FRAMEWORKS,
    SINGLE_WORKER_STRATEGIES,
    Framework,
)

__all__ = [
    "NOISE_FRAMEWORK",
    "Member",
    "Modules",
    "abridged",
    "check_workers",
    "plan",
    "run_member",
    "strategy_pairs",
]

NOISE_FRAMEWORK: Framework = "torch"
"""Whose self-noise is measured: the one that starts sooner."""

_ABRIDGED_STEPS = 50

Modules = Mapping[Framework, str]
"""Framework -> the module that is started in its package's place; for tests of the proof itself."""


@dataclass(frozen=True)
class Member:
    """One run of the proof."""

    framework: Framework
    workers: int
    probe: Probe

    @property
    def name(self) -> str:
        """Such as ``torch x2`` or ``torch x1, perturbed 1``."""
        return f"{self.framework} x{self.workers}{self._change}"

    @property
    def slug(self) -> str:
        """The name of the run's folder."""
        return self.name.replace(", ", "-").replace(" ", "-")

    @property
    def _change(self) -> str:
        if self.probe.perturbation is not None:
            return f", perturbed {self.probe.perturbation}"
        if self.probe.permutation is not None:
            return f", permuted {self.probe.permutation}"
        return ""


def plan(config: Config) -> Iterator[Member]:
    """The runs in their order: both frameworks at every worker count, then the self-noise."""
    parity = config.parity
    precision = config.training.precision
    for workers in sorted(parity.workers):
        for framework in FRAMEWORKS:
            yield Member(framework, workers, Probe(precision=precision))
    base = min(parity.workers)
    for seed in range(1, parity.floor_runs + 1):
        yield Member(NOISE_FRAMEWORK, base, Probe(precision=precision, perturbation=seed))
    for seed in range(1, parity.permuted_runs + 1):
        yield Member(NOISE_FRAMEWORK, base, Probe(precision=precision, permutation=seed))


def abridged(config: Config) -> Config:
    """A proof short enough to precede every study: fewer steps, at the study's worker counts."""
    examples, parts = config.training.batch_size_per_worker, config.training.gradient_accumulation
    sharing = [workers for workers in config.study.workers if examples % (workers * parts) == 0]
    short = config.parity.model_copy(
        update={
            "workers": sharing or [1],
            "steps": min(config.parity.steps, _ABRIDGED_STEPS),
            "floor_runs": 1,
            "permuted_runs": 0,
        }
    )
    return config.model_copy(update={"parity": short})


def strategy_pairs(config: Config) -> Iterator[Config]:
    """The configuration of every two strategies that will stand side by side.

    Asynchronous training, which nothing can be held to, is left out.
    """
    synchronous = [
        [name for name in config.strategies(each) if name not in ASYNCHRONOUS_STRATEGIES]
        for each in FRAMEWORKS
    ]
    for names in product(*synchronous):
        sides: dict[str, BaseModel] = {
            each: getattr(config, each).model_copy(update={"strategy": name})
            for each, name in zip(FRAMEWORKS, names, strict=True)
        }
        yield config.model_copy(update=sides)


def check_workers(config: Config) -> None:
    """Refuse worker counts that cannot run.

    Raises:
        InputError: naming the field.
    """
    examples, parts = config.training.batch_size_per_worker, config.training.gradient_accumulation
    for workers in config.parity.workers:
        if examples % (workers * parts):
            accumulated = f" in {parts} parts each (training.gradient_accumulation)"
            raise InputError(
                f"parity.workers: {workers} workers cannot share a global batch of {examples} "
                "examples (training.batch_size_per_worker) equally"
                f"{accumulated if parts > 1 else ''}"
            )
        for framework in FRAMEWORKS:
            strategy = config.strategy(framework)
            if strategy in ASYNCHRONOUS_STRATEGIES:
                raise InputError(
                    f"{framework}.strategy: {strategy} is asynchronous: no two of its runs take "
                    "the same steps, so none can be held to another framework's"
                )
            if workers > 1 and strategy in SINGLE_WORKER_STRATEGIES:
                raise InputError(
                    f"parity.workers: {workers} workers, but {framework}.strategy '{strategy}' "
                    "runs one; ask for `--workers 1`"
                )


def run_member(
    config: Config,
    member: Member,
    folder: Path,
    on_step: Callable[[int, int], None],
    modules: Modules | None = None,
) -> Trace:
    """Train as the member says, in processes of its own; nothing is tracked.

    Raises:
        WorkError: if it failed, or left no trace.
    """
    output = folder / member.slug
    output.mkdir(parents=True)
    resolved = _member_config(config, member).dump(output / "config.yaml")
    probe = member.probe.dump(output / "probe.json")

    def on_event(rank: int, event: dict[str, Any]) -> None:
        if rank == 0 and event["event"] == "step":
            on_step(event["step"], event["steps"])

    launch(
        member.framework,
        ["train", "--config", str(resolved), "--output", str(output), "--probe", str(probe)],
        logs=output,
        layout=Layout.of(config, member.framework, member.workers),
        environment=config.child_variables,
        on_event=on_event,
        module=(modules or {}).get(member.framework),
    )
    trace = output / TRACE_NAME
    if not trace.exists():
        raise WorkError(f"{member.name} ended without a trace (logs: {output})")
    return Trace.load(trace)


def _member_config(config: Config, member: Member) -> Config:
    """The configuration of one run: its share of the one global batch, and the shared reader."""
    training, steps = config.training, config.parity.steps
    return config.model_copy(
        update={
            "training": training.model_copy(
                update={
                    "batch_size_per_worker": training.batch_size_per_worker // member.workers,
                    "steps": steps,
                    "warmup_steps": min(training.warmup_steps, steps - 1),
                }
            ),
            "data": config.data.model_copy(update={"reader": "shared"}),
            "study": config.study.model_copy(
                update={"workers": [member.workers], "threads_per_worker": 1}
            ),
        }
    )
