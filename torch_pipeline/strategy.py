"""Distribution strategies, and the little that a run says between its workers."""

import os

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import distributed

from pipelines.worker import Worker

__all__ = ["build_strategy", "describe_software", "fence", "gather_over_workers"]


def build_strategy(name: str, worker: Worker) -> Strategy:
    """The named strategy, returned once all workers have met.

    ``single``: one process. ``ddp``: DistributedDataParallel over NCCL, or gloo without a GPU.
    """
    if name == "single":
        return SingleDeviceStrategy(device=_device())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if "MASTER_ADDR" in os.environ:
        distributed.init_process_group(backend)
        strategy = DDPStrategy(cluster_environment=TorchElasticEnvironment())
    else:
        alone = distributed.HashStore()
        distributed.init_process_group(backend, store=alone, rank=0, world_size=1)
        strategy = DDPStrategy()
    distributed.barrier()
    return strategy


def gather_over_workers(
    strategy: Strategy, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Every worker's vector (n,), stacked by rank to (workers, n), on every worker."""
    if not distributed.is_initialized():
        return values[np.newaxis]
    mine = torch.from_numpy(values).to(_device())
    everyone = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, mine)
    return torch.stack(everyone).cpu().numpy()


def fence(strategy: Strategy) -> None:
    """Wait until this worker's devices have finished what was issued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize(strategy.root_device)


def describe_software() -> dict[str, str]:
    """Version of the framework and the class of build that runs here (``cpu``, ``cuda12``)."""
    cuda = (torch.version.cuda or "").partition(".")[0] if torch.cuda.is_available() else ""
    return {
        "framework_version": f"torch {torch.__version__}",
        "software_build": f"cuda{cuda}" if cuda else "cpu",
    }


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")
