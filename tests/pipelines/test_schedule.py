from collections.abc import Callable

import numpy as np

from pipelines.config import Config
from pipelines.schedule import learning_rates


def test_a_constant_rate_is_the_optimisers(load_quickstart: Callable[..., Config]) -> None:
    config = load_quickstart("training.schedule={name: constant}", "training.steps=21")

    np.testing.assert_array_equal(learning_rates(config.training), [0.003] * 21)


def test_a_warm_up_grows_linearly_and_reaches_the_peak(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart("training.schedule={name: constant, warmup_steps: 4}")

    rates = learning_rates(config.training) / 0.003

    np.testing.assert_allclose(rates[:6], [0.25, 0.5, 0.75, 1, 1, 1])


def test_a_cosine_falls_from_the_peak_to_its_final_share(
    load_quickstart: Callable[..., Config],
) -> None:
    config = load_quickstart(
        "training.schedule={name: cosine, warmup_steps: 2, final_share: 0.2}",
        "training.steps=13",
        "training.warmup_steps=1",
    )

    rates = learning_rates(config.training) / 0.003

    np.testing.assert_allclose(rates[:3], [0.5, 1, 1])
    np.testing.assert_allclose(rates[[7, 12]], [0.6, 0.2])
    assert (np.diff(rates[2:]) < 0).all()
