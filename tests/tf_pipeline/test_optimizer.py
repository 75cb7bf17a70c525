from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.config import Config
from tf_pipeline.optimizer import build_optimizer, global_norm

OPTIMIZERS = {
    "sgd": ("name=sgd",),
    "momentum": ("name=momentum", "momentum=0.8"),
    "adam": ("name=adam", "epsilon=0.01"),
    "adamw": ("name=adamw", "weight_decay=0.3", "beta2=0.9"),
}
Update = Callable[..., np.ndarray]


@pytest.fixture
def asked(load_shrunk: Callable[..., Config]) -> Callable[[str], Config]:
    """A config with one of the optimisers, under a schedule that changes at every step."""

    def load(name: str) -> Config:
        settings = [f"training.optimizer.{each}" for each in OPTIMIZERS[name]]
        if name != "adamw":
            settings.append("training.optimizer.weight_decay=0")
        return load_shrunk(
            *settings,
            "training.optimizer.learning_rate=0.05",
            "training.schedule={name: cosine, warmup_steps: 3, final_share: 0.1}",
        )

    return load


@pytest.fixture
def gradients() -> list[list[np.ndarray]]:
    """For each of five steps, those of a matrix (3, 2) and of a vector (2,)."""
    generator = np.random.default_rng(5)
    return [[generator.standard_normal(shape) for shape in ((3, 2), (2,))] for _ in range(5)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_takes_the_published_steps(
    asked: Callable[[str], Config],
    gradients: list[list[np.ndarray]],
    reference_updates: Update,
    name: str,
) -> None:
    config = asked(name)
    initial = [np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, -0.5])]

    found = updated(config, initial, gradients)

    for number, weight in enumerate(initial):
        of_steps = [step[number] for step in gradients]
        expected = reference_updates(config, weight, of_steps)
        np.testing.assert_allclose(found[number], expected, rtol=1e-12, atol=1e-13)


def test_the_global_norm_is_that_of_all_elements() -> None:
    values = [np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([12.0])]

    assert norm_of(values) == pytest.approx(13)


class Parameters:
    """Two parameters in float64, as a model holds them."""

    def __init__(self, initial: list[np.ndarray]) -> None:
        self.trainable_variables = [
            keras.Variable(weight, dtype="float64", name=f"weight{number}")
            for number, weight in enumerate(initial)
        ]


def updated(
    config: Config, initial: list[np.ndarray], gradients: list[list[np.ndarray]]
) -> list[np.ndarray]:
    """Both parameters after a step with each of the gradients."""
    model = Parameters(initial)
    optimizer = build_optimizer(config, model)
    for step in gradients:
        optimizer.apply([tf.constant(each) for each in step], model.trainable_variables)
    return [variable.numpy() for variable in model.trainable_variables]


def norm_of(values: list[np.ndarray]) -> float:
    return float(global_norm([tf.constant(value) for value in values]))


def test_gradients_are_clipped_by_their_global_norm(load_shrunk: Callable[..., Config]) -> None:
    config = load_shrunk(
        "training.optimizer={name: sgd, learning_rate: 1.0, weight_decay: 0, clip_norm: 2.6}",
        "training.schedule={name: constant}",
    )

    found = updated(
        config, [np.zeros((1, 2)), np.zeros(1)], [[np.array([[3.0, 4.0]]), np.array([12.0])]]
    )

    np.testing.assert_allclose(found[0], [[-0.6, -0.8]], rtol=1e-6)
    np.testing.assert_allclose(found[1], [-2.4], rtol=1e-6)
