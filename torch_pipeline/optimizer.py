"""Optimisers in PyTorch: its own, with the workload's exemptions from decay."""

import torch
from torch import Tensor, nn

from pipelines.config import Config
from torch_pipeline.sharding import whole

__all__ = ["build_optimizer", "global_norm"]


def build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimiser over a model's trainable parameters.

    Clipping is the ``Trainer``'s, over the workers' common gradient; the learning rates of
    ``pipelines.schedule`` are set from outside.
    """
    asked = config.training.optimizer
    parameters = list(model.parameters())
    if asked.name in ("sgd", "momentum"):
        momentum = asked.momentum if asked.name == "momentum" else 0.0
        return torch.optim.SGD(parameters, lr=asked.learning_rate, momentum=momentum)
    return torch.optim.AdamW(
        [
            {
                "params": [each for each in parameters if each.ndim > 1],
                "weight_decay": asked.weight_decay,
            },
            {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=asked.learning_rate,
        betas=(asked.beta1, asked.beta2),
        eps=asked.epsilon,
    )


def global_norm(values: list[Tensor]) -> Tensor:
    """L2 norm over all elements of all tensors, the norm of the tensors' norms."""
    return whole(nn.utils.get_total_norm(values))
