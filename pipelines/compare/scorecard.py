"""The scorecard: criteria that comparisons judge by opinion, as far as this project measured them.

It picks no winner. A criterion goes to a side only where one of its indicators speaks for that side
and none for the other; nothing is averaged over indicators. What weights do to the order is shown,
not settled.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from pipelines.compare.part import Part
from pipelines.scorecard_config import CRITERIA, Criterion, ScorecardConfig
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework

__all__ = [
    "CRITERION_TITLES",
    "Basis",
    "Better",
    "Indicator",
    "JudgedCriterion",
    "Reading",
    "Scorecard",
    "Weighting",
    "scorecard_of",
]

Better = Literal["tf", "torch", "divided", "no difference", "not comparable", "not measured"]
Basis = Literal["repeats", "count", "once"]

CRITERION_TITLES: dict[Criterion, str] = {
    each: each.replace("_", " ").capitalize() for each in CRITERIA
}


class Reading(Part):
    """One framework's value of an indicator."""

    value: float | None
    """null: not measured."""
    mlflow_run_ids: list[str]
    """Where it was measured; empty for what the code itself says."""


class Indicator(Part):
    """One measured figure that speaks to a criterion."""

    name: str
    unit: str
    """As in the table of metrics."""
    prefer: Literal["more", "less"]
    tf: Reading
    torch: Reading
    ratio: float | None
    """PyTorch's over TensorFlow's; null: not known, or TensorFlow's is 0."""
    basis: Basis
    """``repeats``: tested as throughput is; ``count``: exact, of code or packages; ``once``: a
    single measurement, or one that chance decides, which calls no difference."""
    better: Better
    remark: str = ""
    """Why nothing is called, where that is so."""


class JudgedCriterion(Part):
    """One criterion, and what speaks to it."""

    criterion: Criterion
    title: str
    weight: float
    indicators: list[Indicator]
    better: Better
    """``divided``: some of its indicators speak for one side, some for the other."""


class Weighting(Part):
    """What one choice of weights comes to."""

    name: str
    tf: float
    """Share of all weight that lies on criteria which go to TensorFlow."""
    torch: float
    neither: float
    ahead: Framework | Literal["neither"]


class Scorecard(Part):
    """The whole table."""

    criteria: list[JudgedCriterion]
    weightings: list[Weighting]
    """As set, equal, as set but by tested indicators alone, and each criterion's weight doubled and
    left out."""
    conclusion: str
    """Whether the order ever changes, in words."""


def scorecard_of(
    indicators: Mapping[Criterion, Sequence[Indicator]], config: ScorecardConfig
) -> Scorecard:
    """Judge each criterion by its indicators, and try the weights."""
    criteria = [
        JudgedCriterion(
            criterion=criterion,
            title=CRITERION_TITLES[criterion],
            weight=config.weight(criterion),
            indicators=list(indicators.get(criterion, ())),
            better=_judge(indicators.get(criterion, ())),
        )
        for criterion in CRITERIA
    ]
    weightings = _weightings(criteria)
    return Scorecard(criteria=criteria, weightings=weightings, conclusion=_conclude(weightings))


def _judge(indicators: Sequence[Indicator]) -> Better:
    found = {each.better for each in indicators} - {"not measured"}
    sides = found & {"tf", "torch"}
    if len(sides) == 2:
        return "divided"
    if sides:
        return "tf" if "tf" in sides else "torch"
    if not found:
        return "not measured"
    return "no difference" if "no difference" in found else "not comparable"


def _weightings(criteria: Sequence[JudgedCriterion]) -> list[Weighting]:
    weights = {each.criterion: each.weight for each in criteria}
    tried = {"as set": weights, "all equal": dict.fromkeys(weights, 1.0)}
    for each in criteria:
        tried[f"{each.title}: doubled"] = weights | {each.criterion: 2 * each.weight}
        tried[f"{each.title}: left out"] = weights | {each.criterion: 0.0}
    sides = {each.criterion: each.better for each in criteria}
    tested = {
        each.criterion: _judge([one for one in each.indicators if one.basis == "repeats"])
        for each in criteria
    }
    as_set, *others = (_weigh(name, chosen, sides) for name, chosen in tried.items())
    return [as_set, _weigh("as set, by tested indicators alone", weights, tested), *others]


def _weigh(
    name: str, weights: Mapping[Criterion, float], sides: Mapping[Criterion, Better]
) -> Weighting:
    whole = sum(weights.values())
    shares = {
        side: sum(weight for each, weight in weights.items() if sides[each] == side) / (whole or 1)
        for side in FRAMEWORKS
    }
    tf, torch = shares["tf"], shares["torch"]
    ahead: Framework | Literal["neither"] = "neither"
    if abs(tf - torch) > 1e-9:  # sums of the same weights in another order
        ahead = "tf" if tf > torch else "torch"
    return Weighting(name=name, tf=tf, torch=torch, neither=1 - tf - torch, ahead=ahead)


def _conclude(weightings: Sequence[Weighting]) -> str:
    if all(each.tf == each.torch == 0 for each in weightings):
        return "No criterion goes to a side, so no weights put one framework before the other."
    first, *others = weightings
    lead = f"With the weights as set, {_lead(first)}."
    other = [each for each in others if each.ahead != first.ahead]
    if not other:
        return f"{lead} The order changes under none of the {len(others)} other weightings tried."
    listed = "; ".join(f"{each.name} ({_lead(each)})" for each in other)
    tried = f"{len(other)} of the {len(others)} other weightings tried"
    return f"{lead} The order changes under {tried}: {listed}."


def _lead(weighting: Weighting) -> str:
    if weighting.ahead == "neither":
        return "neither is ahead"
    return f"{FRAMEWORK_TITLES[weighting.ahead]} is ahead"
