import math

import numpy as np
import torch

from torch_pipeline.activation import gelu


def test_gelu_is_exact_in_float64() -> None:
    values = np.linspace(-5, 5, 41)

    found = activated(values)

    expected = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in values]
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)


def activated(values: np.ndarray) -> np.ndarray:
    return gelu(torch.tensor(values)).numpy()
