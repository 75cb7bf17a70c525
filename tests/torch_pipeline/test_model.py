from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.workloads import Vision
from torch_pipeline.model import build_model

Apply = Callable[[Any, np.ndarray], np.ndarray]
Logits = Callable[[Vision, int, np.ndarray], np.ndarray]

WIDER = {"image_shape": (9, 6, 3), "widths": (4, 6, 8), "blocks_per_stage": 2, "classes": 5}


@pytest.mark.parametrize("seed", [0, 7])
def test_the_initial_network_computes_the_reference_logits(
    workload: Vision, apply_model: Apply, reference_logits: Logits, seed: int
) -> None:
    images = np.random.default_rng(1).standard_normal((5, *workload.image_shape)).astype("float32")

    logits = apply_model(build_model(workload, seed), images)

    assert logits.shape == (5, 10)
    np.testing.assert_allclose(logits, reference_logits(workload, seed, images), atol=1e-5)


def test_other_sizes_odd_and_not_square_compute_the_reference_logits(
    workload: Vision, apply_model: Apply, reference_logits: Logits
) -> None:
    wider = replace(workload, **WIDER)
    images = np.random.default_rng(2).standard_normal((3, 9, 6, 3)).astype("float32")

    logits = apply_model(build_model(wider, 0), images)

    assert logits.shape == (3, 5)
    np.testing.assert_allclose(logits, reference_logits(wider, 0, images), atol=1e-5)


def test_an_image_is_judged_alone_whatever_else_is_in_its_batch(
    workload: Vision, apply_model: Apply
) -> None:
    images = np.random.default_rng(3).standard_normal((4, *workload.image_shape)).astype("float32")
    model = build_model(workload, 0)

    together = apply_model(model, images)
    alone = np.concatenate([apply_model(model, images[[row]]) for row in range(4)])

    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_network_has_19562_trainable_parameters(workload: Vision) -> None:
    parameters = list(build_model(workload, 0).parameters())

    assert sum(parameter.numel() for parameter in parameters) == 19_562
    assert all(parameter.requires_grad for parameter in parameters)


def test_the_seed_alone_decides_the_initial_weights(workload: Vision, apply_model: Apply) -> None:
    images = np.ones((1, *workload.image_shape), np.float32)
    first, again, other = (
        apply_model(build_model(workload, seed), images).tolist() for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other
