"""Batch normalisation over the global batch, as Keras's synchronised layer computes it."""

import torch
from torch import Tensor, distributed, nn
from torch.distributed._functional_collectives import all_reduce

__all__ = ["GlobalBatchNorm"]


class GlobalBatchNorm(nn.Module):
    """Standardises each channel of (batch, channels, height, width) by all workers' batches.

    ``nn.SyncBatchNorm`` runs on GPUs alone and keeps the sample's variance where Keras keeps the
    population's. This takes Keras's formulas (Ioffe & Szegedy, 2015), mean(x * x) - mean(x)**2
    for the variance included, in float32 at least. Workers must hold equally large batches.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape and type of ``x``; updates the running statistics while training."""
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance = self.running_mean, self.running_var
        if self.training:
            mean, variance = _moments(values)
            self._keep(self.running_mean, mean)
            self._keep(self.running_var, variance)
        factor = torch.rsqrt(variance + self.epsilon) * self.weight
        shift = self.bias - mean * factor
        return (values * factor[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _keep(self, running: Tensor, latest: Tensor) -> None:
        running.copy_(running * self.momentum + latest * (1 - self.momentum))


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (channels,) over all workers' batches, rows and columns."""
    over = (0, 2, 3)
    sums = torch.stack([values.sum(over), values.square().sum(over)])
    count = values.numel() // values.shape[1]
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        # Differentiable, compiled too; the public all_reduce of torch.distributed.nn is deprecated.
        sums = all_reduce(sums, "sum", distributed.group.WORLD)
        count *= distributed.get_world_size()
    mean, mean_of_squares = sums / count
    return mean, (mean_of_squares - mean.square()).clamp_min(0)
