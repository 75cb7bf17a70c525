"""The part that a deep network repeats."""

from abc import abstractmethod

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Block"]


class Block(nn.Module):
    """Sharded as a unit, and with ``recompute`` the unit whose activations are not kept."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self._recompute = recompute

    @abstractmethod
    def compute(self, x: Tensor) -> Tensor:
        """What the block makes of ``x``."""

    def forward(self, x: Tensor) -> Tensor:
        """``compute(x)``; while training, again for the gradient, if that is asked for."""
        if not (self._recompute and self.training):
            return self.compute(x)
        # No block draws random numbers.
        result: Tensor = checkpoint(self.compute, x, use_reentrant=False, preserve_rng_state=False)
        return result
