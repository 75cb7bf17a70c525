"""Distribution strategies, and the little that a run says between its workers."""

import os
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.strategy_config import DdpConfig
from pipelines.worker import Worker
from torch_pipeline.sharding import CpuZero, Fsdp, Zero

__all__ = ["build_strategy", "describe_software", "fence", "gather_over_workers"]


def build_strategy(config: Config, worker: Worker) -> Strategy:
    """The configured strategy, returned once all workers have met.

    They meet over NCCL, or gloo without a GPU, where torchrun's variables say; a worker that
    nobody launched is alone.

    Raises:
        InputError: if this machine or these workers cannot train so.
    """
    if worker.replicas > 1:
        raise InputError(
            f"--replicas: PyTorch trains one replica per process, not {worker.replicas}; start as "
            "many processes instead (--workers, or torchrun --nproc-per-node)"
        )
    name = config.torch.strategy
    if name == "single":
        if worker.workers > 1:
            raise InputError(
                f"torch.strategy: single trains one worker, not {worker.workers}; take ddp"
            )
        return SingleDeviceStrategy(device=_device())
    launched = "MASTER_ADDR" in os.environ
    environment = TorchElasticEnvironment() if launched else _Alone()
    builders = {"ddp": _ddp, "fsdp": _fsdp}
    strategy = builders.get(name, _zero)(config, worker, environment)
    _meet(launched, config.torch.timeout_seconds)
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
        torch.cuda.synchronize(_device())


def describe_software() -> dict[str, str]:
    """Version of the framework and the class of build that runs here (``cpu``, ``cuda12``)."""
    cuda = (torch.version.cuda or "").partition(".")[0] if torch.cuda.is_available() else ""
    return {
        "framework_version": f"torch {torch.__version__}",
        "software_build": f"cuda{cuda}" if cuda else "cpu",
    }


def _device() -> torch.device:
    if torch.cuda.is_available():
        # A launcher may let each worker see no GPU but its own.
        place = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return torch.device("cuda", place)
    return torch.device("cpu")


class _Alone(LightningEnvironment):
    """Of a worker that nobody launched, and that is to launch no others."""

    @property
    def creates_processes_externally(self) -> bool:
        return True


class _Ddp(DDPStrategy):
    def __init__(self, options: DdpConfig, environment: ClusterEnvironment) -> None:
        super().__init__(
            cluster_environment=environment,
            bucket_cap_mb=options.bucket_mb,
            static_graph=options.static_graph,
            gradient_as_bucket_view=options.gradient_as_bucket_view,
        )
        self._options = options

    def configure_ddp(self) -> None:
        """With the hook that compresses; Lightning registers its own on GPUs alone."""
        super().configure_ddp()
        hooks: dict[str, tuple[Any, Any]] = {
            "float16": (None, default_hooks.fp16_compress_hook),
            "bfloat16": (
                None,
                _bfloat16_hook
                if self.root_device.type == "cpu"
                else default_hooks.bf16_compress_hook,
            ),
            "powersgd": (self._powersgd_state(), powerSGD_hook.powerSGD_hook),
        }
        if self._options.compression in hooks:
            self.model.register_comm_hook(*hooks[self._options.compression])

    def _powersgd_state(self) -> powerSGD_hook.PowerSGDState:
        return powerSGD_hook.PowerSGDState(
            process_group=None,
            matrix_approximation_rank=self._options.powersgd_rank,
            start_powerSGD_iter=2,  # as early as can be: buckets are laid anew after one step
        )


def _bfloat16_hook(
    group: Any, bucket: distributed.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    """PyTorch's own, which it refuses by its name without NCCL, though gloo sums bfloat16 too."""
    return default_hooks.bf16_compress_hook(group, bucket)


def _ddp(config: Config, worker: Worker, environment: ClusterEnvironment) -> Strategy:
    options = config.torch.ddp
    if options.static_graph and config.training.gradient_accumulation > 1:
        raise InputError(
            "torch.ddp.static_graph: PyTorch cannot combine it with gradient accumulation; set it "
            "to false, or training.gradient_accumulation to 1"
        )
    return _Ddp(options, environment)


def _fsdp(config: Config, worker: Worker, environment: ClusterEnvironment) -> Strategy:
    options, group = config.torch.fsdp, worker.workers
    if options.sharding == "hybrid":
        group = options.group_workers or int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if worker.workers % group:
            raise InputError(
                f"torch.fsdp.group_workers: groups of {group} do not divide {worker.workers} "
                "workers; take a divisor, or sharding: full"
            )
    return Fsdp(environment, worker.workers, group)


def _zero(config: Config, worker: Worker, environment: ClusterEnvironment) -> Strategy:
    name, precision = config.torch.strategy, config.training.precision
    offload = config.torch.deepspeed.offload == "cpu"
    if precision == "float64":
        raise InputError(
            f"training.precision: float64 is not possible under {name}, whose gradients are at "
            "most float32; take ddp or fsdp"
        )
    stage, bfloat16 = int(name.removeprefix("deepspeed_zero")), precision == "bfloat16"
    if torch.cuda.is_available():
        return Zero(environment, stage, offload=offload, bfloat16=bfloat16)
    if offload:
        raise InputError(
            "torch.deepspeed.offload: cpu moves what GPUs hold, and there is none; set it to none"
        )
    return CpuZero(environment, stage, bfloat16=bfloat16)


def _meet(launched: bool, timeout_seconds: int | None) -> None:
    """Join the other workers, once per process."""
    timeout = None if timeout_seconds is None else timedelta(seconds=timeout_seconds)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(_device())
    if distributed.is_initialized():
        pass
    elif launched:
        given = {} if timeout is None else {"timeout": timeout}
        shared, rank, workers = next(distributed.rendezvous("env://", **given))
        # torchrun keeps its store when it starts its workers again: a dead one's address in it
        # would be taken for a live one's.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(f"attempt{attempt}", shared)
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=workers, timeout=timeout
        )
    else:
        alone = distributed.HashStore()
        distributed.init_process_group(backend, store=alone, rank=0, world_size=1)
    distributed.barrier()
