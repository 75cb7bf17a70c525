"""The proof from end to end: run every member, compare, conclude."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import ComparisonRefusedError
from pipelines.folder_lock import held_alone
from pipelines.ingest.dataset import Dataset
from pipelines.metrics import METRICS
from pipelines.parity.members import (
    NOISE_FRAMEWORK,
    Member,
    Modules,
    check_workers,
    plan,
    run_member,
)
from pipelines.parity.model import Bounds, Comparison, Curve, Divergence, Kind, Parity
from pipelines.parity.trace import QUANTITIES, Trace
from pipelines.parity.verdict import (
    FIRST_STEPS,
    Floor,
    Rule,
    compare_traces,
    measure_floor,
    rule_for,
    step_bounds,
)
from pipelines.strategies import FRAMEWORKS
from pipelines.workloads import Workload, get_workload

__all__ = ["conclude", "prove", "require_passed"]

OnProgress = Callable[[str, int, int, int, int], None]
"""Called with a run's name, its number, how many there are, and its steps done and in all."""


def prove(
    config: Config,
    dataset: Dataset,
    params: Mapping[str, object],
    on_progress: OnProgress,
    modules: Modules | None = None,
    runs: Path | None = None,
) -> Parity:
    """Run both frameworks on the same weights and batches, and say whether they agree.

    ``params`` is what the verdict is to hold for. The runs' folders are left in
    ``runs``, by default ``<output>/parity/runs``, in the place of what is there.

    Raises:
        InputError: if a worker count cannot run, or another process has its runs there.
        WorkError: if a run failed.
    """
    check_workers(config)
    folder = runs or config.output / "parity" / "runs"
    with held_alone(folder, "give another output"):
        traces = _run_members(config, folder, on_progress, modules)
    workload = get_workload(config, dataset.manifest)
    rule = rule_for(config.training.precision, smooth=workload.is_smooth)
    return conclude(config, traces, rule, _one_prediction(workload, dataset), params)


def _run_members(
    config: Config, folder: Path, on_progress: OnProgress, modules: Modules | None
) -> dict[Member, Trace]:
    for earlier in folder.iterdir():
        if earlier.is_dir():
            shutil.rmtree(earlier, ignore_errors=True)
    members = list(plan(config))
    traces = {}
    for number, member in enumerate(members, start=1):

        def on_step(step: int, steps: int, name: str = member.name, number: int = number) -> None:
            on_progress(name, number, len(members), step, steps)

        on_step(0, config.parity.steps)
        traces[member] = run_member(config, member, folder, on_step, modules)
    return traces


def conclude(
    config: Config,
    traces: Mapping[Member, Trace],
    rule: Rule,
    one_prediction: Mapping[str, float],
    params: Mapping[str, object],
) -> Parity:
    """The verdict on runs that are done."""
    plain = [member for member in traces if member.name == f"{member.framework} x{member.workers}"]
    base = min(member.workers for member in plain)
    [reference] = [
        member for member in plain if member.workers == base and member.framework == NOISE_FRAMEWORK
    ]
    perturbed = [trace for member, trace in traces.items() if member.probe.perturbation is not None]
    permuted = [member for member in traces if member.probe.permutation is not None]
    floor = measure_floor(traces[reference], perturbed)
    pairs = [*_pairs(plain), *(("order", member, reference) for member in permuted)]
    comparisons = [
        compare_traces(
            kind,
            (left.name, traces[left]),
            (right.name, traces[right]),
            rule,
            floor,
            one_prediction,
        )
        for kind, left, right in pairs
    ]
    return Parity(
        study=config.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        passed=not _failures(comparisons),
        summary=_summary(comparisons, config.parity.steps),
        claim=rule.claim,
        workload=str(params.get("workload", config.workload.name)),
        optimizer=config.training.optimizer.name,
        precision=config.training.precision,
        global_batch_size=config.training.batch_size_per_worker,
        workers=sorted({member.workers for member in plain}),
        steps=config.parity.steps,
        first_steps=FIRST_STEPS,
        least=dict(rule.least),
        later=dict(rule.later),
        multiple=rule.multiple,
        lookahead=rule.lookahead,
        floor_run=reference.name,
        floor_runs=len(perturbed),
        bounds=_bounds(rule, floor),
        comparisons=comparisons,
        curves=[
            Curve(run=member.name, loss=traces[member].series["loss"].tolist()) for member in plain
        ],
        params={name: str(value) for name, value in params.items()},
    )


def require_passed(parity: Parity) -> None:
    """Let a passed verdict pass.

    Raises:
        ComparisonRefusedError: naming what differs first.
    """
    if parity.passed:
        return
    found = {
        each.title: [each.divergence.quantity]
        for each in _failures(parity.comparisons)
        if each.divergence is not None
    }
    raise ComparisonRefusedError(f"parity failed: {parity.summary}", found)


def _pairs(plain: Sequence[Member]) -> Iterator[tuple[Kind, Member, Member]]:
    """The frameworks at each worker count; then each of them at more workers against itself."""
    counts = sorted({member.workers for member in plain})
    by_place = {(member.framework, member.workers): member for member in plain}
    for workers in counts:
        yield "frameworks", by_place["tf", workers], by_place["torch", workers]
    for framework in FRAMEWORKS:
        for workers in counts[1:]:
            yield "workers", by_place[framework, workers], by_place[framework, counts[0]]


def _bounds(rule: Rule, floor: Floor) -> list[Bounds]:
    return [
        Bounds(
            quantity=quantity,
            floor=floor.series[quantity].tolist(),
            bound=step_bounds(rule, floor, quantity).tolist(),
        )
        for quantity in QUANTITIES
    ]


def _one_prediction(workload: Workload, dataset: Dataset) -> dict[str, float]:
    """What one prediction is worth in the metrics that are shares of all predictions."""
    predictions = dataset.manifest.rows("eval") * workload.predictions_per_example
    return {name: 1 / predictions for name in workload.metrics if METRICS[name].unit == "share"}


def _failures(comparisons: Sequence[Comparison]) -> list[Comparison]:
    return [each for each in comparisons if each.divergence is not None and each.kind != "order"]


def _summary(comparisons: Sequence[Comparison], steps: int) -> str:
    failures = _failures(comparisons)
    judged = sum(each.kind != "order" for each in comparisons)
    if not failures:
        pairs = "the pair of runs agrees" if judged == 1 else f"all {judged} pairs of runs agree"
        return f"{pairs} over {steps} steps and in their final weights"
    first = min(failures, key=lambda each: _step(each.divergence, steps))
    assert first.divergence is not None
    more = f" ({len(failures)} of {judged} pairs differ)" if judged > 1 else ""
    return f"{first.title} differ in {_tell(first.divergence)}{more}"


def _step(divergence: Divergence | None, steps: int) -> int:
    return steps + 1 if divergence is None or divergence.step is None else divergence.step


def _tell(found: Divergence) -> str:
    if found.quantity == "weights":
        return f"their final weights by {found.difference:.1e}, where {found.bound:.1e} is allowed"
    place = "after the last step" if found.step is None else f"first at step {found.step}"
    return (
        f"{found.quantity} {place}: {found.left:.9g} and {found.right:.9g}, "
        f"{found.difference:.1e} apart where {found.bound:.1e} is allowed"
    )
