from collections.abc import Callable
from typing import Any

from pipelines import tracking
from pipelines.config import Config


def test_a_value_per_step_is_kept_apart_from_the_others(
    config: Config, client: Any, new_run: Callable[..., str]
) -> None:
    run_id = new_run(config)

    efficiencies = {1: 1.0, 4: 0.7, 2: 0.9}
    points = {workers: {"scaling_efficiency": value} for workers, value in efficiencies.items()}
    tracking.log_curves(config, run_id, points)

    history = client.get_metric_history(run_id, "scaling_efficiency")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.9), (4, 0.7)]
