import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.parity.trace import TRACE_NAME, Trace, relative_differences

Make = Callable[..., Trace]


def test_a_trace_is_read_as_rank_0_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / TRACE_NAME
    np.savez(
        file,
        loss=[2.0, 1.0],
        gradient_norm=[3.0, 4.0],
        weight_norm=[5.0, 6.0],
        **{"weights/head/kernel": np.ones((2, 3), np.float32), "metric/eval_loss": 0.5},
    )

    trace = Trace.load(file)

    assert trace.steps == 2
    assert trace.series["gradient_norm"].tolist() == [3, 4]
    assert trace.weights["head/kernel"].shape == (2, 3)
    assert trace.metrics == {"eval_loss": 0.5}


def test_differences_are_relative_to_the_larger_value() -> None:
    left, right = np.array([1.0, 2.0, 0.0, -1.0]), np.array([1.0, 1.0, 0.0, 1.0])

    assert relative_differences(left, right).tolist() == [0, 0.5, 0, 2]
    assert relative_differences(right, left).tolist() == [0, 0.5, 0, 2]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_agrees_with_nothing_not_even_itself(broken: float) -> None:
    values = np.array([broken])

    assert relative_differences(values, values).tolist() == [math.inf]
    assert relative_differences(values, np.array([1.0])).tolist() == [math.inf]


def test_the_weights_difference_is_relative_over_all_tensors(make_trace: Make) -> None:
    one = make_trace(weights={"a": np.array([3.0]), "b": np.array([0.0, 4.0])})
    other = make_trace(weights={"a": np.array([3.0]), "b": np.array([0.5, 4.0])})

    assert one.weights_norm() == 5
    assert one.weights_difference(other) == pytest.approx(0.5 / math.sqrt(25.25))


@pytest.mark.parametrize("weights", [{}, {"b": np.ones(2)}, {"a": np.ones((1, 2))}])
def test_other_names_or_shapes_are_another_model(make_trace: Make, weights: dict) -> None:
    one, other = make_trace(weights={"a": np.ones(2)}), make_trace(weights=weights)

    assert one.weights_difference(other) == math.inf


def test_weights_that_broke_down_are_infinitely_far(make_trace: Make) -> None:
    broken = make_trace(weights={"a": np.array([np.nan])})

    assert broken.weights_difference(broken) == math.inf
