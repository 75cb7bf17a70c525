"""Activations that must agree to the last digit."""

from torch import Tensor
from torch.nn import functional

__all__ = ["gelu"]


def gelu(x: Tensor) -> Tensor:
    """The exact GELU (Hendrycks & Gimpel, 2016), not its tanh approximation, in any shape."""
    return functional.gelu(x)
