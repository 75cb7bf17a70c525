"""What a step consists of, each by itself: its computation, and an all-reduce of its size."""

from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.strategies import Strategy
from torch import distributed

from pipelines.config import Config
from pipelines.worker import Worker
from pipelines.workloads import Workload
from torch_pipeline.data import open_dataset
from torch_pipeline.strategy import fence
from torch_pipeline.train import build_step

__all__ = ["build_all_reduce", "build_compute"]


def build_compute(
    config: Config,
    workload: Workload,
    strategy: Strategy,
    transformed: Path | None = None,
) -> Callable[[int], None]:
    """What takes so many training steps, all on one batch that lies on the device, and waits.

    Without collectives if ``strategy`` is of one device. Around a step is a bare loop; issuing its
    operations one by one is how PyTorch computes.
    """
    step = build_step(config, workload, strategy)
    batches = open_dataset(config, workload, "train", Worker(), transformed)
    features, target = strategy.batch_to_device(next(iter(batches)))

    def compute(steps: int) -> None:
        for _ in range(steps):
            step(features, target)
        fence(strategy)

    return compute


def build_all_reduce(strategy: Strategy, elements: int) -> Callable[[int], None]:
    """What sums a float32 vector over all workers so many times in a row, and waits.

    All workers must call it together.
    """
    # On the process's own GPU; a strategy has no device before there is a Trainer.
    vector = torch.zeros(elements, device="cuda" if torch.cuda.is_available() else "cpu")

    def all_reduce(repeats: int) -> None:
        for _ in range(repeats):
            distributed.all_reduce(vector)
        fence(strategy)

    return all_reduce
