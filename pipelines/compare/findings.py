"""The answers a reader came for, in plain language and with their figures."""

from collections.abc import Mapping, Sequence

from pipelines.compare import formats
from pipelines.compare.cost import Cost
from pipelines.compare.maintenance import Maintenance
from pipelines.compare.model import (
    Cell,
    Difference,
    Finding,
    Interval,
    PipelineRun,
    ScalingPoint,
    StepSplit,
)
from pipelines.compare.overhead_model import Overhead
from pipelines.compare.told import told_cells, told_scaling
from pipelines.strategies import Framework

__all__ = ["cost_finding", "findings"]

_NOISE = 0.1
"""Share of a step that a part of it may come out below zero and the others still be told."""
_FIXED = {"weak": "batch per worker", "strong": "global batch"}
"""What a kind of scaling holds fixed."""
_BLESSINGS = {True: "was blessed", False: "was not blessed", None: "was not judged"}


def findings(
    cells: Sequence[Cell],
    scaling: Sequence[ScalingPoint],
    differences: Sequence[Difference],
    splits: Sequence[StepSplit],
    overhead: Mapping[Framework, Overhead],
    pipelines: Mapping[Framework, PipelineRun],
    maintenance: Mapping[Framework, Maintenance],
) -> list[Finding]:
    """Speed, scaling, where time goes, what running and keeping costs: what there is of them.

    Where both kinds of scaling were measured it is weak scaling that is told: the tables have both.
    """
    kind = told_scaling(cells)
    cells = [each for each in cells if each.scaling == kind]
    scaling = [each for each in scaling if each.scaling == kind]
    differences = [each for each in differences if each.scaling == kind]
    splits = [each for each in splits if each.scaling == kind]
    answers = [
        _speed(cells, differences),
        _scaling(cells, scaling),
        _step_split(cells, splits),
        _start_up(overhead),
        _goodput(overhead),
        _recovery(overhead),
        _pipelines(pipelines, overhead) if pipelines else None,
        _maintenance(maintenance) if maintenance else None,
    ]
    return [answer for answer in answers if answer is not None]


def _speed(cells: Sequence[Cell], differences: Sequence[Difference]) -> Finding | None:
    fastest = told_cells(cells)
    if not fastest:
        return None
    workers = next(iter(fastest.values())).workers
    trained = " and ".join(
        f"{formats.title(name, cell.strategy)} trained {formats.rate(cell.median)} examples/s"
        for name, cell in fastest.items()
    )
    statement = f"At {formats.workers(workers)}, {trained}"
    topic = f"Throughput, {formats.workers(workers)}"
    if len(fastest) == 1:
        (cell,) = fastest.values()
        headline = f"{formats.rate(cell.median)} examples/s"
        statement += "; no run of the other framework to compare with."
        return Finding(topic=topic, headline=headline, statement=statement)
    strategies = (fastest["tf"].strategy, fastest["torch"].strategy)
    difference = next(
        (
            d
            for d in differences
            if d.workers == workers and (d.tf_strategy, d.torch_strategy) == strategies
        ),
        None,
    )
    if difference is None:
        statement += "; asynchronous training is not set against synchronous."
        return Finding(topic=topic, headline="Not compared", statement=statement)
    headline, comparison = _compared(difference)
    elsewhere = _at_other_counts(difference, differences)
    sentences = [f"{statement}.", comparison, *elsewhere, difference.remark]
    return Finding(topic=topic, headline=headline, statement=" ".join(filter(None, sentences)))


def _at_other_counts(told: Difference, differences: Sequence[Difference]) -> list[str]:
    """The same two strategies at the other worker counts, a sentence each."""
    sentences = []
    for other in differences:
        same = (other.tf_strategy, other.torch_strategy) == (told.tf_strategy, told.torch_strategy)
        if same and other.workers != told.workers:
            headline, _ = _compared(other)
            sentences.append(f"At {formats.workers(other.workers)}: {headline}.")
    return sentences


def _compared(difference: Difference) -> tuple[str, str]:
    """Headline and sentence; the faster side is named first, so a ratio is never below 1."""
    ratio, ends = difference.ratio, difference.interval95
    if difference.verdict == "no significant difference":
        known = f" (95 % interval {formats.interval(ends, '{:.2f}')})" if ends else ""
        excludes = ends is not None and not ends[0] <= 1 <= ends[1]
        why = ", which Welch's test of the repeats does not confirm" if excludes else ""
        return "No significant difference", f"PyTorch / TensorFlow is {ratio:.2f}{known}{why}."
    fast: Framework = "torch"
    if difference.verdict == "tf faster":
        fast, ratio, ends = "tf", 1 / ratio, _inverse(ends)
    return (
        f"{formats.title(fast)} {ratio:.2f}× as fast",
        f"{formats.title(fast)} is {ratio:.2f} times as fast "
        f"(95 % interval {formats.interval(ends, '{:.2f}')}).",
    )


def _inverse(ends: Interval | None) -> Interval | None:
    return ends and (1 / ends[1], 1 / ends[0])


def _scaling(cells: Sequence[Cell], scaling: Sequence[ScalingPoint]) -> Finding | None:
    """The scaling of the very cells whose speed was told; the table has the others."""
    told = {(cell.framework, cell.strategy, cell.workers) for cell in told_cells(cells).values()}
    points = [
        point
        for point in scaling
        if (point.framework, point.strategy, point.workers) in told
        and point.workers > point.base_workers
    ]
    if not points:
        return None
    kind = points[0].scaling
    most, base = points[0].workers, min(point.base_workers for point in points)
    shares = " and ".join(
        f"{formats.title(point.framework, point.strategy)} kept "
        f"{formats.percent(point.efficiency, 0)}{_between(point.interval95)}"
        for point in points
    )
    headline = _side_by_side(
        {point.framework: formats.percent(point.efficiency, 0) for point in points}
    )
    return Finding(
        topic=f"{kind.capitalize()} scaling, {base} to {formats.workers(most)}",
        headline=headline,
        statement=f"With a fixed {_FIXED[kind]}, {shares} of ideal throughput.",
    )


def _step_split(cells: Sequence[Cell], splits: Sequence[StepSplit]) -> Finding | None:
    """Of the cells whose speed was told: computation, and the rest, the largest first."""
    told = {(cell.framework, cell.strategy, cell.workers) for cell in told_cells(cells).values()}
    found = {
        split.framework: split
        for split in splits
        if (split.framework, split.strategy, split.workers) in told
    }
    if not found:
        return None
    sentences, shares = [], {}
    for framework, split in found.items():
        parts = {
            "its training loop": split.host_seconds,
            "input": split.input_seconds or 0.0,
            "communication": split.communication_seconds,
        }
        if min(parts.values()) < -_NOISE * split.step_seconds:
            shares[framework] = "unclear"
            sentences.append(
                f"{formats.title(framework)}'s step of {formats.milliseconds(split.step_seconds)} "
                "cannot be told apart: its parts, timed minutes from it, took longer than it did."
            )
            continue
        shares[framework] = formats.percent(split.compute_seconds / split.step_seconds, 0)
        others = ", ".join(
            f"{formats.percent(seconds / split.step_seconds, 0)} {name}"
            for name, seconds in sorted(parts.items(), key=lambda item: -item[1])
        )
        sentences.append(
            f"Of {formats.title(framework)}'s step of {formats.milliseconds(split.step_seconds)}, "
            f"{shares[framework]} is computation, {others}."
        )
    (workers,) = {split.workers for split in found.values()}
    return Finding(
        topic=f"Computing, of a step on {formats.workers(workers)}",
        headline=_side_by_side(shares),
        statement=" ".join(sentences),
    )


def _between(ends: Interval | None) -> str:
    if ends is None:
        return ""
    return f" ({formats.interval((100 * ends[0], 100 * ends[1]), '{:.0f}')} %)"


def _pipelines(
    pipelines: Mapping[Framework, PipelineRun], overhead: Mapping[Framework, Overhead]
) -> Finding:
    sentences = []
    for name, run in pipelines.items():
        sentence = f"{formats.title(name)} took {formats.seconds(run.seconds)}"
        if run.cached_stages:
            sentence += f", {run.cached_stages} of its components coming from the cache"
        side = overhead.get(name)
        if side is not None and side.pipeline is not None and not run.cached_stages:
            beyond = side.pipeline.overhead_seconds
            if beyond is not None:
                sentence += f", {formats.seconds(beyond)} of it beyond its components' own work"
        sentence += f"; its model {_BLESSINGS[run.blessed]}"
        if run.eval_metrics:
            judged = formats.judged_title([run.eval_metrics])
            sentence += f", at {formats.judged(run.eval_metrics)} eval {judged}"
        sentences.append(f"{sentence}.")
    return Finding(
        topic="Whole pipeline, one run each",
        headline=_side_by_side({n: formats.seconds(run.seconds) for n, run in pipelines.items()}),
        statement=" ".join(sentences),
    )


def _start_up(overhead: Mapping[Framework, Overhead]) -> Finding | None:
    waits = {
        name: side.time_to_first_step_seconds
        for name, side in overhead.items()
        if side.time_to_first_step_seconds is not None
    }
    if not waits:
        return None
    sentences = [
        f"Of {formats.title(name)}'s {formats.seconds(waits[name])}, "
        f"{_largest(side.first_step, 'step')}."
        for name, side in overhead.items()
        if name in waits and side.first_step
    ]
    return Finding(
        topic=f"To the first step, {_workers_of(overhead)}",
        headline=_side_by_side({name: formats.seconds(wait) for name, wait in waits.items()}),
        statement=" ".join(["Of the slowest worker, from its process's start.", *sentences]),
    )


def _goodput(overhead: Mapping[Framework, Overhead]) -> Finding | None:
    shares = {
        name: formats.percent(side.goodput_share, 0)
        for name, side in overhead.items()
        if side.goodput_share is not None
    }
    if not shares:
        return None
    sentences = [
        f"Of {formats.title(name)}'s {formats.seconds(side.wall_seconds)}, "
        f"{_largest(side.goodput, 'step')}."
        for name, side in overhead.items()
        if name in shares
    ]
    return Finding(
        topic=f"Goodput of a run, {_workers_of(overhead)}",
        headline=_side_by_side(shares),
        statement=" ".join(["Steps that count, of a run's wall clock.", *sentences]),
    )


def _largest(parts: Mapping[str, float], but: str) -> str:
    """The two largest of the parts, in words."""
    others = sorted((name for name in parts if name != but), key=lambda name: -parts[name])[:2]
    told = " and ".join(
        f"{formats.seconds(parts[name])} went to {name.replace('_', ' ')}" for name in others
    )
    return told or "nothing went to anything else"


def _recovery(overhead: Mapping[Framework, Overhead]) -> Finding | None:
    found = {name: side.recovery for name, side in overhead.items() if side.recovery is not None}
    if not found:
        return None
    faults = " or ".join(sorted({back.fault for back in found.values()}))
    again = " and ".join(
        f"{formats.title(name)} did {formats.count(back.lost_steps)}"
        for name, back in found.items()
    )
    return Finding(
        topic="Back after a fault, one run each",
        headline=_side_by_side(
            {
                name: formats.seconds((back.notice_seconds or 0.0) + back.recovery_seconds)
                for name, back in found.items()
            }
        ),
        statement=f"From {faults} to the first new step. {again} steps again.",
    )


def _workers_of(overhead: Mapping[Framework, Overhead]) -> str:
    (count,) = {side.workers for side in overhead.values()}
    return formats.workers(count)


def _maintenance(maintenance: Mapping[Framework, Maintenance]) -> Finding:
    sentences = [
        f"{formats.title(name)}'s side asks for {formats.count(kept.direct_dependencies)} and gets "
        f"{formats.count(kept.total_dependencies)}, {formats.gibibytes(kept.install_bytes)} in "
        f"all; its own code is {formats.count(kept.code_lines)} lines."
        for name, kept in maintenance.items()
    ]
    headline = {name: formats.count(kept.total_dependencies) for name, kept in maintenance.items()}
    return Finding(
        topic="To keep up to date: packages",
        headline=_side_by_side(headline),
        statement=" ".join(sentences),
    )


def cost_finding(cost: Mapping[Framework, Cost]) -> Finding | None:
    """What a million examples cost each side; None where no side's cost is known."""
    known = {
        name: side
        for name, side in cost.items()
        if side.per_million_examples.total.amount is not None
    }
    if not known:
        return None
    prices = next(iter(known.values()))
    made_up = ", example prices" if prices.example else ""
    sentences = [
        f"Of {formats.title(name)}'s, {formats.percent(lost / total, 0)} is lost goodput."
        for name, side in known.items()
        if (total := side.per_million_examples.total.amount)
        and (lost := side.per_million_examples.lost_goodput.amount) is not None
    ]
    return Finding(
        topic=f"A million examples in {prices.currency}{made_up}",
        headline=_side_by_side(
            {
                name: formats.money(side.per_million_examples.total.amount)
                for name, side in known.items()
            }
        ),
        statement=" ".join(
            [
                "What a run takes of the machine, start-up and end included, "
                f"at prices of {prices.as_of}.",
                *sentences,
            ]
        ),
    )


def _side_by_side(values: Mapping[Framework, str]) -> str:
    return ", ".join(f"{formats.title(name)} {value}" for name, value in values.items())
