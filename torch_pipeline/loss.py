"""The workloads' loss functions in PyTorch."""

from torch import Tensor
from torch.nn import functional

from pipelines.workloads import Workload

__all__ = ["mean_loss", "prediction_losses"]


def mean_loss(workload: Workload, logits: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy over all predictions, in nats."""
    return prediction_losses(workload, logits, target).mean()


def prediction_losses(workload: Workload, logits: Tensor, target: Tensor) -> Tensor:
    """The cross-entropy of every prediction, in nats, in the target's shape.

    ``softmax``: logits (..., classes) and classes (...). ``sigmoid``: logits and 0 or 1 (batch,).
    """
    if logits.dtype.itemsize < 4:  # a mean of many needs more digits than mixed precision has
        logits = logits.float()
    if workload.loss == "softmax":
        losses = functional.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none")
        return losses.reshape(target.shape)
    return functional.binary_cross_entropy_with_logits(
        logits, target.to(logits.dtype), reduction="none"
    )
