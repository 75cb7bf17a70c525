"""The verdict: two traces agree, or this is the first thing in which they do not.

Bounds are measured where they can be: after the first steps, two runs may lie a small multiple of
the distance that one rounding of the initial weights makes within one framework.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.parity.model import Claim, Comparison, Divergence, EndCheck, Kind, StepCheck
from pipelines.parity.probe import Precision
from pipelines.parity.trace import QUANTITIES, Quantity, Series, Trace, relative_differences

__all__ = [
    "FIRST_STEPS",
    "Floor",
    "Rule",
    "compare_traces",
    "measure_floor",
    "rule_for",
    "step_bounds",
]

FIRST_STEPS = 10
"""The steps held, and told, by themselves: rounding has hardly grown, and a fault shows."""


@dataclass(frozen=True)
class Rule:
    """How far apart two runs may lie."""

    claim: Claim
    least: Mapping[Quantity, float]
    """What is allowed whatever the self-noise: a few roundings. That of the loss holds for the
    final weights and for evaluation too."""
    later: Mapping[Quantity, float]
    """The same from the first steps on, until the last."""
    multiple: float = 0.0
    """How many times the self-noise is allowed."""
    lookahead: int = 0
    """By how many steps one run's noise may jump sooner than another's."""


_KINK_STEPS = 50
"""A value that falls on a kink (of a ReLU, say) in one run and beside it in another makes the
self-noise jump by orders of magnitude, sooner in one run than in the next: networks with kinks are
held to the self-noise of so many steps later."""
_MULTIPLE = 5.0
"""Correct sides stay below 3 times the self-noise of three perturbed runs (docs/parity.md)."""
_FLOAT32: Mapping[Quantity, float] = {"loss": 1e-6, "gradient_norm": 1e-6, "weight_norm": 5e-7}
"""Measured over ten steps (docs/parity.md): losses stay below 2e-7 apart on smooth networks at
usual learning rates, gradients' norms below 4e-7."""
_LATER: Mapping[Quantity, float] = {**_FLOAT32, "gradient_norm": 3e-5}
"""A gradient's rounding moves the weights where the loss is steepest, which rounding the initial
weights hardly does: near the largest stable learning rate, gradients' norms then lie up to 1e-5
apart where losses and weights agree to 3e-7 (docs/parity.md)."""
_DERIVED = ("eval_perplexity",)
"""The exponential of ``eval_loss``, which is compared itself."""


def rule_for(precision: Precision, *, smooth: bool = True) -> Rule:
    """The rule of a precision, for a network without kinks or with them."""
    lookahead = 0 if smooth else _KINK_STEPS
    if precision == "float64":
        exact = dict.fromkeys(QUANTITIES, 1e-12)
        return Rule("exact", exact, exact)
    if precision == "float32":
        return Rule("rounding", _FLOAT32, _LATER, _MULTIPLE, lookahead)
    # Mixed precision rounds in places that the frameworks choose.
    few = dict.fromkeys(QUANTITIES, 8 * {"bfloat16": 2**-8, "float16": 2**-11}[precision])
    return Rule("mixed", few, few, _MULTIPLE, lookahead)


@dataclass(frozen=True)
class Floor:
    """The self-noise: how far one rounding of the initial weights carries a run from itself."""

    series: Mapping[Quantity, Series]
    """The largest relative difference up to each step, over all perturbed runs."""
    weights: float
    metrics: Mapping[str, float]


def measure_floor(reference: Trace, perturbed: Sequence[Trace]) -> Floor:
    """The self-noise of a run, from perturbed runs of it; without any, there is none."""
    nothing = np.zeros(reference.steps)
    series: dict[Quantity, Series] = {}
    for quantity in QUANTITIES:
        apart = [
            relative_differences(run.series[quantity], reference.series[quantity])
            for run in perturbed
        ]
        series[quantity] = np.maximum.accumulate(np.max([nothing, *apart], axis=0))
    metrics = {
        name: max((reference.metric_difference(run, name) for run in perturbed), default=0.0)
        for name in reference.metrics
    }
    # One number of a few runs may be quiet by chance; the loss of training is the same function.
    trained = float(series["loss"][-1]) * abs(reference.metrics["eval_loss"])
    metrics["eval_loss"] = max(metrics["eval_loss"], trained)
    return Floor(
        series=series,
        weights=max((reference.weights_difference(run) for run in perturbed), default=0.0),
        metrics=metrics,
    )


def step_bounds(rule: Rule, floor: Floor, quantity: Quantity) -> Series:
    """What a quantity may differ by at each step."""
    noise = _noise(rule, floor, quantity)
    # Where noise is infinite (a run broke down) nothing can be concluded: no difference passes.
    early = np.arange(len(noise)) < FIRST_STEPS
    least = np.where(early, rule.least[quantity], rule.later[quantity])
    allowed = np.maximum(least, rule.multiple * noise)
    return np.where(np.isfinite(noise), allowed, 0.0)


def _noise(rule: Rule, floor: Floor, quantity: Quantity) -> Series:
    noise = floor.series[quantity]
    places = np.minimum(np.arange(len(noise)) + rule.lookahead, len(noise) - 1)
    later = noise[places]
    if quantity == "loss":
        later[0] = noise[0]  # of the very same weights, and a kink is continuous
    return later


def compare_traces(
    kind: Kind,
    left: tuple[str, Trace],
    right: tuple[str, Trace],
    rule: Rule,
    floor: Floor,
    one_prediction: Mapping[str, float],
) -> Comparison:
    """Compare two named runs.

    ``one_prediction``: for each metric that counts predictions, what a single one is worth; two
    classes whose logits tie to the last digit may go either way.
    """
    steps = [_check_steps(quantity, left[1], right[1], rule, floor) for quantity in QUANTITIES]
    ends = list(_check_ends(left[1], right[1], rule, floor, one_prediction))
    return Comparison(
        kind=kind,
        left=left[0],
        right=right[0],
        steps=steps,
        ends=ends,
        divergence=_first_divergence(left[1], right[1], rule, floor, steps, ends),
    )


def _check_steps(
    quantity: Quantity, left: Trace, right: Trace, rule: Rule, floor: Floor
) -> StepCheck:
    differences = _differences(quantity, left, right, floor)
    noise = floor.series[quantity]
    noisy = (noise > 0) & np.isfinite(noise)
    return StepCheck(
        quantity=quantity,
        differences=differences.tolist(),
        first_steps=float(differences[:FIRST_STEPS].max()),
        largest=float(differences.max()),
        largest_step=int(differences.argmax()) + 1,
        times_floor=float((differences[noisy] / noise[noisy]).max()) if noisy.any() else None,
        share_of_bound=_largest_share(differences, step_bounds(rule, floor, quantity)),
    )


def _largest_share(differences: Series, bounds: Series) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(differences > 0, differences / bounds, 0.0)
    return float(shares.max())


def _differences(quantity: Quantity, left: Trace, right: Trace, floor: Floor) -> Series:
    """As long as the floor; a step that one of the two did not take agrees with none."""
    apart = np.full(len(floor.series[quantity]), np.inf)
    both = min(left.steps, right.steps, len(apart))
    apart[:both] = relative_differences(left.series[quantity][:both], right.series[quantity][:both])
    return apart


def _check_ends(
    left: Trace, right: Trace, rule: Rule, floor: Floor, one_prediction: Mapping[str, float]
) -> Iterator[EndCheck]:
    apart = left.weights_difference(right)
    yield EndCheck(
        quantity="weights",
        left=left.weights_norm(),
        right=right.weights_norm(),
        difference=apart,
        bound=_end_bound(rule, 1.0, floor.weights),
        times_floor=_times(apart, floor.weights),
    )
    for name, noise in floor.metrics.items():
        if name in _DERIVED:
            continue
        values = [trace.metrics.get(name, math.nan) for trace in (left, right)]
        scale = max(map(abs, values))
        apart = abs(values[0] - values[1])
        yield EndCheck(
            quantity=name,
            left=values[0],
            right=values[1],
            difference=apart if math.isfinite(apart) else math.inf,
            bound=max(_end_bound(rule, scale, noise), one_prediction.get(name, 0.0)),
            times_floor=_times(apart, noise),
        )


def _end_bound(rule: Rule, scale: float, noise: float) -> float:
    return (
        max(rule.least["loss"] * scale, rule.multiple * noise)
        if math.isfinite(scale + noise)
        else 0.0
    )


def _times(difference: float, noise: float) -> float | None:
    return difference / noise if noise > 0 else None


def _first_divergence(
    left: Trace,
    right: Trace,
    rule: Rule,
    floor: Floor,
    steps: Sequence[StepCheck],
    ends: Sequence[EndCheck],
) -> Divergence | None:
    """The earliest step that is out of bounds, and in it the quantity that is computed first."""
    found = []
    for check in steps:
        bounds = step_bounds(rule, floor, check.quantity)
        [outside] = np.nonzero(np.array(check.differences) > bounds)
        if len(outside):
            found.append((int(outside[0]), check, float(bounds[outside[0]])))
    if found:
        place, check, bound = min(found, key=lambda item: item[0])
        return Divergence(
            quantity=check.quantity,
            step=place + 1,
            left=_at(left.series[check.quantity], place),
            right=_at(right.series[check.quantity], place),
            difference=check.differences[place],
            bound=bound,
        )
    for end in ends:
        if end.difference > end.bound:
            values = end.model_dump(include={"quantity", "left", "right", "difference", "bound"})
            return Divergence(step=None, **values)
    return None


def _at(series: Series, place: int) -> float:
    return float(series[place]) if place < len(series) else math.nan
