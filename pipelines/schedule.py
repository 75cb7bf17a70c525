"""The learning rate of every step, worked out once for both frameworks."""

import numpy as np
import numpy.typing as npt

from pipelines.config import TrainingConfig

__all__ = ["learning_rates"]


def learning_rates(config: TrainingConfig) -> npt.NDArray[np.float64]:
    """The learning rate of every optimiser step, (steps,).

    A linear warm-up that reaches the peak at its last step; then the peak, or half a cosine from
    it that reaches ``final_share`` of it at the last step (Loshchilov & Hutter, 2017, "SGDR").
    """
    schedule, steps = config.schedule, np.arange(config.steps, dtype=np.float64)
    warmup = schedule.warmup_steps
    shares = np.ones(config.steps)
    if schedule.name == "cosine":
        progress = (steps - warmup).clip(min=0) / max(config.steps - 1 - warmup, 1)
        falling = (1 + np.cos(np.pi * progress)) / 2
        shares = schedule.final_share + (1 - schedule.final_share) * falling
    if warmup:
        shares = np.where(steps < warmup, (steps + 1) / warmup, shares)
    return config.optimizer.learning_rate * shares
