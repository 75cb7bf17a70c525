import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipelines.parity.model import Comparison
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

Make = Callable[..., Trace]
FLOAT32 = rule_for("float32")


def compared(
    left: Trace, right: Trace, floor: Floor, rule: Rule = FLOAT32, **one: float
) -> Comparison:
    return compare_traces("frameworks", ("tf x1", left), ("torch x1", right), rule, floor, one)


def changed(trace: Trace, quantity: str, step: int, factor: float, until: int = 10**6) -> Trace:
    series = {name: values.copy() for name, values in trace.series.items()}
    series[quantity][step - 1 : until] *= factor  # type: ignore[index]
    return Trace(series, trace.weights, trace.metrics)


def test_a_run_agrees_with_itself_without_any_floor(make_trace: Make) -> None:
    for precision in ("float32", "float64", "bfloat16", "float16"):
        nothing = measure_floor(make_trace(), [])
        found = compared(make_trace(), make_trace(), nothing, rule_for(precision))
        assert found.divergence is None
        assert all(check.largest == check.share_of_bound == 0 for check in found.steps)
        assert all(end.difference == 0 for end in found.ends)


@pytest.mark.parametrize("seed", range(5, 15))
def test_rounding_alone_passes(make_trace: Make, floor: Floor, seed: int) -> None:
    found = compared(make_trace(noise=1e-7, seed=seed), make_trace(), floor)

    assert found.divergence is None
    assert 0 < max(check.share_of_bound for check in found.steps) < 1


@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("step", [1, 2, FIRST_STEPS, FIRST_STEPS + 1, 40])
def test_the_first_step_that_differs_is_named_with_its_quantity_and_both_values(
    make_trace: Make, floor: Floor, quantity: Any, step: int
) -> None:
    healthy = make_trace()
    wrong = changed(healthy, quantity, step, 1.001)

    found = compared(wrong, healthy, floor).divergence

    assert found is not None
    assert (found.quantity, found.step) == (quantity, step)
    assert found.left == wrong.series[quantity][step - 1]
    assert found.right == healthy.series[quantity][step - 1]
    assert found.difference == pytest.approx(0.001 / 1.001)
    assert found.bound < (1e-4 if quantity == "gradient_norm" and step > FIRST_STEPS else 1e-5)


def test_the_gradients_norm_is_held_less_closely_after_the_first_steps(
    make_trace: Make,
) -> None:
    healthy = make_trace()
    quiet = measure_floor(healthy, [])

    early = compared(changed(healthy, "gradient_norm", FIRST_STEPS, 1 + 1e-5), healthy, quiet)
    later = compared(changed(healthy, "gradient_norm", FIRST_STEPS + 1, 1 + 1e-5), healthy, quiet)
    loss = compared(changed(healthy, "loss", FIRST_STEPS + 1, 1 + 1e-5), healthy, quiet)

    assert early.divergence is not None and early.divergence.step == FIRST_STEPS
    assert later.divergence is None
    assert loss.divergence is not None and loss.divergence.step == FIRST_STEPS + 1


def test_the_earliest_step_counts_and_in_it_what_is_computed_first(
    make_trace: Make, floor: Floor
) -> None:
    healthy = make_trace()
    later_loss = changed(changed(healthy, "loss", 8, 1.1), "weight_norm", 3, 1.1)
    same_step = changed(changed(healthy, "weight_norm", 3, 1.5), "gradient_norm", 3, 1.1)

    first = compared(later_loss, healthy, floor).divergence
    second = compared(same_step, healthy, floor).divergence

    assert first is not None and (first.quantity, first.step) == ("weight_norm", 3)
    assert second is not None and (second.quantity, second.step) == ("gradient_norm", 3)


def test_a_difference_of_one_step_alone_is_found(make_trace: Make, floor: Floor) -> None:
    healthy = make_trace()

    found = compared(changed(healthy, "loss", 20, 1.001, until=20), healthy, floor)

    assert found.divergence is not None and found.divergence.step == 20


def test_float32_allows_a_millionth_where_noise_is_less(make_trace: Make) -> None:
    nothing = measure_floor(make_trace(), [])
    healthy = make_trace()

    for step in (1, FIRST_STEPS + 5):
        assert (
            compared(changed(healthy, "loss", step, 1 + 9e-7), healthy, nothing).divergence is None
        )
        assert compared(changed(healthy, "loss", step, 1 + 1.1e-6), healthy, nothing).divergence


def test_the_noise_may_be_exceeded_by_a_small_multiple(make_trace: Make) -> None:
    quiet, noise = make_trace(), 1e-4
    floor = measure_floor(quiet, [changed(quiet, "loss", 20, 1 + noise)])

    bounds = step_bounds(FLOAT32, floor, "loss")

    assert bounds[:19].tolist() == [1e-6] * 19
    assert bounds[19:] == pytest.approx(FLOAT32.multiple * noise, rel=1e-3)
    assert step_bounds(FLOAT32, floor, "weight_norm").tolist() == [5e-7] * quiet.steps


def test_the_floor_is_the_largest_difference_so_far_of_any_perturbed_run(make_trace: Make) -> None:
    quiet = make_trace()
    one = changed(quiet, "loss", 3, 1.5, until=3)
    other = changed(quiet, "loss", 10, 1.2, until=10)

    floor = measure_floor(quiet, [one, other]).series["loss"]

    assert floor[:2].tolist() == [0, 0]
    assert floor[2:] == pytest.approx(0.5 / 1.5)


def test_noise_before_a_step_excuses_no_difference_at_it(make_trace: Make) -> None:
    quiet = make_trace()
    floor = measure_floor(quiet, [changed(quiet, "loss", 30, 1.5)])

    found = compared(changed(quiet, "loss", 29, 1.01), quiet, floor).divergence

    assert found is not None and found.step == 29


def test_float64_owes_1e_12_however_large_the_floor(make_trace: Make) -> None:
    quiet = make_trace()
    loud = measure_floor(quiet, [make_trace(noise=0.1)])
    rule = rule_for("float64")

    assert compared(changed(quiet, "loss", 30, 1 + 8e-13), quiet, loud, rule).divergence is None
    assert compared(changed(quiet, "loss", 30, 1 + 2e-12), quiet, loud, rule).divergence


def test_a_run_that_breaks_down_never_passes(make_trace: Make, floor: Floor) -> None:
    broken = changed(make_trace(), "loss", 12, math.nan)

    for left, right in ((broken, make_trace()), (make_trace(), broken), (broken, broken)):
        found = compared(left, right, floor).divergence
        assert found is not None and (found.quantity, found.step) == ("loss", 12)


def test_a_floor_that_broke_down_allows_nothing(make_trace: Make) -> None:
    quiet = make_trace()
    floor = measure_floor(quiet, [changed(quiet, "loss", 12, math.nan)])

    found = compared(make_trace(noise=1e-7), quiet, floor).divergence

    assert found is not None and (found.quantity, found.step) == ("loss", 12)


@pytest.mark.parametrize("steps", [(39, 40), (40, 39)])
def test_a_step_that_one_run_did_not_take_is_a_difference(
    make_trace: Make, floor: Floor, steps: tuple[int, int]
) -> None:
    left, right = (make_trace(steps=count) for count in steps)

    found = compared(left, right, floor).divergence

    assert found is not None and found.step == 40
    assert math.isnan(found.left) != math.isnan(found.right)


def test_final_weights_are_compared_even_where_every_step_agrees(
    make_trace: Make, floor: Floor
) -> None:
    healthy = make_trace()
    kernel = healthy.weights["head/kernel"]
    turned = make_trace(weights={**healthy.weights, "head/kernel": -kernel})  # of the same norm

    found = compared(turned, healthy, floor).divergence

    assert found is not None
    assert (found.quantity, found.step) == ("weights", None)
    assert found.left == found.right


def test_evaluation_is_held_to_the_floor_too(make_trace: Make, floor: Floor) -> None:
    healthy = make_trace()
    wrong = make_trace(metrics={**healthy.metrics, "eval_loss": 0.4004})

    found = compared(wrong, healthy, floor).divergence

    assert found is not None
    assert (found.quantity, found.step, found.left, found.right) == ("eval_loss", None, 0.4004, 0.4)


def test_one_prediction_may_go_either_way_and_two_may_not(make_trace: Make, floor: Floor) -> None:
    healthy, one = make_trace(), 1 / 362
    another = make_trace(metrics={**healthy.metrics, "eval_accuracy": 0.9 + one * 0.999})
    wrong = make_trace(metrics={**healthy.metrics, "eval_accuracy": 0.9 + 2 * one})

    assert compared(another, healthy, floor, eval_accuracy=one).divergence is None
    assert compared(another, healthy, floor).divergence is not None
    assert compared(wrong, healthy, floor, eval_accuracy=one).divergence is not None


def test_a_metric_that_one_side_lacks_is_a_difference(make_trace: Make, floor: Floor) -> None:
    lacking = make_trace(metrics={"eval_loss": 0.4})

    found = compared(lacking, make_trace(), floor).divergence

    assert found is not None and found.quantity == "eval_accuracy"


def test_multiples_of_the_noise_are_reported(make_trace: Make) -> None:
    quiet = make_trace()
    floor = measure_floor(quiet, [changed(quiet, "loss", 5, 1 + 1e-6)])

    [check] = [
        each
        for each in compared(changed(quiet, "loss", 20, 1 + 3e-6), quiet, floor).steps
        if each.quantity == "loss"
    ]

    assert check.times_floor == pytest.approx(3, rel=1e-3)
    assert check.largest_step >= 20
    assert np.argmax(check.differences) + 1 == check.largest_step
    assert check.first_steps == 0


def test_a_network_with_kinks_may_jump_sooner_than_its_noise_did(make_trace: Make) -> None:
    quiet = make_trace()
    floor = measure_floor(quiet, [changed(quiet, "loss", 20, 1.001)])
    early = changed(quiet, "loss", 4, 1.001)
    kinked = rule_for("float32", smooth=False)

    assert compared(early, quiet, floor).divergence is not None
    assert compared(early, quiet, floor, kinked).divergence is None


def test_kinks_excuse_nothing_in_the_first_loss_nor_in_float64(make_trace: Make) -> None:
    quiet = make_trace()
    floor = measure_floor(quiet, [changed(quiet, "loss", 20, 1.001)])
    wrong = changed(quiet, "loss", 1, 1 + 2e-6, until=1)

    found = compared(wrong, quiet, floor, rule_for("float32", smooth=False)).divergence

    assert found is not None and (found.quantity, found.step) == ("loss", 1)
    assert rule_for("float64", smooth=False) == rule_for("float64")


def test_a_quiet_evaluation_is_not_held_closer_than_training_is(make_trace: Make) -> None:
    healthy = make_trace()
    noisy = make_trace(noise=1e-5, seed=1, metrics=healthy.metrics)
    another = make_trace(metrics={**healthy.metrics, "eval_loss": 0.4 * (1 + 4e-6)})

    found = compared(another, healthy, measure_floor(healthy, [noisy]))

    assert found.divergence is None
