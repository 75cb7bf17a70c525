from collections.abc import Mapping

import pytest

from pipelines.compare.scorecard import Basis, Better, Indicator, Reading, Scorecard, scorecard_of
from pipelines.scorecard_config import CRITERIA, Criterion, ScorecardConfig


def indicator(better: Better, basis: Basis = "count") -> Indicator:
    reading = Reading(value=1.0, mlflow_run_ids=[])
    return Indicator(
        name=better,
        unit="count",
        prefer="less",
        tf=reading,
        torch=reading,
        ratio=1.0,
        basis=basis,
        better=better,
    )


def card_of(found: Mapping[Criterion, list[Better]], **weights: float) -> Scorecard:
    indicators = {each: [indicator(better) for better in said] for each, said in found.items()}
    return scorecard_of(indicators, ScorecardConfig.model_validate({"weights": weights}))


@pytest.mark.parametrize(
    ("said", "better"),
    [
        ([], "not measured"),
        (["not measured"], "not measured"),
        (["tf", "not measured", "no difference"], "tf"),
        (["torch", "not comparable", "torch"], "torch"),
        (["torch", "torch", "tf"], "divided"),
        (["no difference", "not comparable"], "no difference"),
        (["not comparable", "not measured"], "not comparable"),
    ],
)
def test_a_criterion_goes_to_a_side_only_if_nothing_speaks_for_the_other(
    said: list[Better], better: Better
) -> None:
    judged = card_of({"ecosystem": said}).criteria

    assert {each.criterion: each.better for each in judged}["ecosystem"] == better
    assert [each.criterion for each in judged] == list(CRITERIA)
    assert {each.better for each in judged if each.criterion != "ecosystem"} == {"not measured"}


def test_shares_are_of_all_weight_and_criteria_without_a_side_count_for_neither() -> None:
    card = card_of(
        {
            "ecosystem": ["tf"],
            "stability": ["torch"],
            "time_to_deploy": ["torch"],
            "debugging": ["tf", "torch"],
        },
        ecosystem=5,
        debugging=0,
    )

    shares = {each.name: (each.tf, each.torch, each.ahead) for each in card.weightings}
    assert shares["as set"] == pytest.approx((5 / 11, 2 / 11, "tf"))
    assert shares["all equal"] == pytest.approx((1 / 8, 2 / 8, "torch"))
    assert shares["Ecosystem: doubled"] == pytest.approx((10 / 16, 2 / 16, "tf"))
    assert shares["Ecosystem: left out"] == pytest.approx((0, 2 / 6, "torch"))
    assert shares["Stability: left out"] == pytest.approx((5 / 10, 1 / 10, "tf"))
    assert all(each.tf + each.torch + each.neither == pytest.approx(1) for each in card.weightings)
    assert len(card.weightings) == 3 + 2 * len(CRITERIA)


def test_it_says_where_the_order_changes() -> None:
    card = card_of({"ecosystem": ["tf"], "stability": ["torch"]}, ecosystem=2)

    assert card.conclusion == (
        "With the weights as set, TensorFlow is ahead. The order changes under 4 of the 18 other "
        "weightings tried: as set, by tested indicators alone (neither is ahead); all equal "
        "(neither is ahead); Ecosystem: left out (PyTorch is ahead); Stability: doubled (neither "
        "is ahead)."
    )


def test_it_says_that_the_order_never_changes() -> None:
    tested = {"ecosystem": [indicator("torch", "repeats")], "stability": [indicator("torch")]}

    card = scorecard_of(tested, ScorecardConfig())

    assert card.conclusion == (
        "With the weights as set, PyTorch is ahead. "
        "The order changes under none of the 18 other weightings tried."
    )


def test_by_tested_indicators_alone_counts_call_no_side() -> None:
    tested = {
        "ecosystem": [indicator("tf")],
        "stability": [indicator("torch", "repeats"), indicator("tf")],
    }

    weightings = {each.name: each for each in scorecard_of(tested, ScorecardConfig()).weightings}

    assert weightings["as set"].ahead == "tf"
    assert weightings["as set, by tested indicators alone"].ahead == "torch"


def test_without_a_side_there_is_no_order() -> None:
    assert card_of({"ecosystem": ["no difference"]}).conclusion == (
        "No criterion goes to a side, so no weights put one framework before the other."
    )


def test_a_lone_criterion_left_out_leaves_nothing_to_share() -> None:
    nothing = {criterion: 0.0 for criterion in CRITERIA if criterion != "ecosystem"}

    weightings = {each.name: each for each in card_of({"ecosystem": ["tf"]}, **nothing).weightings}

    assert (weightings["as set"].tf, weightings["as set"].ahead) == (1, "tf")
    assert weightings["Ecosystem: left out"].ahead == "neither"
