import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torch_pipeline.loss import mean_loss, prediction_losses

SOFTMAX, SIGMOID = SimpleNamespace(loss="softmax"), SimpleNamespace(loss="sigmoid")


def test_a_softmax_loss_is_the_negative_log_of_the_targets_probability() -> None:
    logits = np.log(np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.9, 0.1], [0.3, 0.7]]]))
    target = np.array([[1, 0], [1, 1]])

    found = losses(SOFTMAX, logits, target)

    np.testing.assert_allclose(found, -np.log([[0.8, 0.5], [0.1, 0.7]]), rtol=1e-12)


def test_a_sigmoid_loss_is_the_negative_log_of_the_targets_probability() -> None:
    logits = np.array([0.0, math.log(3), math.log(3)])

    found = losses(SIGMOID, logits, np.array([1.0, 1.0, 0.0], np.float32))

    np.testing.assert_allclose(found, -np.log([0.5, 0.75, 0.25]), rtol=1e-12)


def test_the_mean_counts_every_prediction_alike() -> None:
    logits, target = np.zeros((2, 3, 5)), np.zeros((2, 3), np.int64)

    assert mean(SOFTMAX, logits, target) == pytest.approx(math.log(5))


def test_a_loss_of_half_precision_logits_has_single_precision() -> None:
    assert half_precision_type() == "float32"


def losses(workload: SimpleNamespace, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    return prediction_losses(workload, torch.tensor(logits), torch.tensor(target)).numpy()


def mean(workload: SimpleNamespace, logits: np.ndarray, target: np.ndarray) -> float:
    return float(mean_loss(workload, torch.tensor(logits), torch.tensor(target)))


def half_precision_type() -> str:
    logits = torch.zeros(2, 3, dtype=torch.bfloat16)
    return str(mean_loss(SOFTMAX, logits, torch.tensor([0, 1])).dtype).removeprefix("torch.")
