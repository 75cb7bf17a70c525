"""Strategies under which no worker holds all of the model, and how to get it whole again."""

import argparse
import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    ModelParallelStrategy,
    Strategy,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from torch_pipeline.workloads.block import Block

__all__ = ["CpuZero", "Fsdp", "Zero", "ZeroPrecision", "is_sharded", "whole", "whole_state"]


class Fsdp(ModelParallelStrategy):
    """FSDP2: each block, and what lies around the blocks, in equal shards over the workers."""

    def __init__(self, environment: ClusterEnvironment, workers: int, group: int) -> None:
        """Shard over groups of ``group`` workers; the groups hold copies of each other."""
        super().__init__(data_parallel_size=workers, tensor_parallel_size=1)
        self.cluster_environment = environment
        self._shape = (group,) if group == workers else (workers // group, group)

    def shard(self, model: nn.Module) -> None:
        """Leave each worker its shards of the model's parameters, in place."""
        names = ("replicate", "shard")[-len(self._shape) :]
        mesh = init_device_mesh(self.root_device.type, self._shape, mesh_dim_names=names)
        for module in model.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)


class Zero(DeepSpeedStrategy):
    """DeepSpeed's ZeRO, on GPUs."""

    def __init__(
        self, environment: ClusterEnvironment, stage: int, *, offload: bool, bfloat16: bool
    ) -> None:
        """ZeRO of a stage (1, 2 or 3); ``offload``: what it can, to the host's memory."""
        super().__init__(
            cluster_environment=environment,
            stage=stage,
            offload_optimizer=offload,
            offload_parameters=offload and stage == 3,
        )
        # Offloaded state is stepped by PyTorch's optimiser too, as under the other strategies.
        self.config["zero_force_ds_cpu_optimizer"] = False
        if bfloat16:
            # DeepSpeed's own ``bf16`` rounds the weights themselves; this is the autocast of the
            # other strategies. No module is named whose gradients would be sent in bfloat16.
            self.config["torch_autocast"] = {
                "enabled": True,
                "dtype": "bfloat16",
                "lower_precision_safe_modules": [],
            }

    @property
    def gradient_norm(self) -> float:
        """Of the last step's gradient, over all parameters and workers, before clipping."""
        return float(self.deepspeed_engine.get_global_grad_norm())

    def setup_distributed(self) -> None:
        """Take over the process group in which the workers have met."""
        reset_seed()
        self.set_world_ranks()
        os.environ.setdefault("LOCAL_RANK", str(self.local_rank))  # DeepSpeed insists on it
        _deepspeed().init_distributed(torch.distributed.get_backend())


class CpuZero(Zero):
    """The same where there is no GPU, for which Lightning's own asks."""

    def __init__(self, environment: ClusterEnvironment, stage: int, *, bfloat16: bool) -> None:
        """ZeRO of a stage; there is nowhere to offload to."""
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # spares a search and a warning
        # Would be compiled at the first start: a minute, and a failure without a compiler.
        _deepspeed().ops.__compatible_ops__["deepspeed_shm_comm"] = False
        super().__init__(environment, stage, offload=False, bfloat16=bfloat16)

    def setup_environment(self) -> None:
        """Without the check for a GPU."""
        DDPStrategy.setup_environment(self)

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Any, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        """Lightning's, but for the device's rank: a CPU has no index."""
        engine, wrapped, _, _ = _deepspeed().initialize(
            args=argparse.Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[each for each in model.parameters() if each.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        return engine, wrapped


class ZeroPrecision(DeepSpeedPrecision):
    """What ``Zero`` needs at any precision, since DeepSpeed does its own autocast."""

    def __init__(self) -> None:
        super().__init__("32-true")

    def backward(
        self, tensor: Tensor, model: Any, optimizer: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Of a part's share of the loss, which Lightning has divided by the number of parts."""
        # DeepSpeed would divide once more: unnoticed by Adam, but not by SGD or clipping.
        super().backward(tensor, model, optimizer, *args, scale_wrt_gas=False, **kwargs)


def is_sharded(strategy: Strategy) -> bool:
    """Whether a worker's model is not an ordinary one while it trains."""
    return isinstance(strategy, Fsdp | Zero)


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each worker may hold a shard; all workers must ask together."""
    if isinstance(tensor, DTensor):
        return tensor.full_tensor()
    if hasattr(tensor, "ds_id"):
        with _deepspeed().zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor


def whole_state(model: nn.Module) -> Mapping[str, Tensor]:
    """The state of a model in shards, in this worker's main memory; all must ask together."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: whole(tensor).detach().cpu().clone() for name, tensor in tensors.items()}


def _deepspeed() -> Any:
    """The package, imported by those alone who use it: it takes seconds."""
    return import_module("deepspeed")
