"""The ``tf`` and ``torch`` sections of the configuration: how each framework distributes."""

import json
from typing import Literal

from pydantic import PositiveInt

from pipelines.data_config import Section
from pipelines.strategies import TfStrategy, TorchStrategy

__all__ = ["DdpConfig", "DeepSpeedConfig", "FsdpConfig", "TfConfig", "TorchConfig"]


class TfConfig(Section):
    """TensorFlow's side."""

    strategy: TfStrategy = "multi_worker_mirrored"
    """``one_device``; ``mirrored``: all devices of one process; ``multi_worker_mirrored``: a
    process per worker; ``parameter_server``: asynchronous; ``tpu``."""
    collectives: Literal["auto", "ring", "nccl"] = "auto"
    """``multi_worker_mirrored``, ``mirrored``: how gradients are summed; ``auto``: NCCL on GPUs."""
    parameter_servers: PositiveInt = 1
    """``parameter_server``: processes that hold the variables."""
    tpu: str = "local"
    """``tpu``: name of the TPU, its gRPC address, or ``local`` on a TPU VM or in its pod."""
    steps_per_call: PositiveInt = 1
    """Steps that one call of the compiled loop takes: more spare an accelerator waiting for
    Python, and leave the wait for data unmeasured."""

    def strategy_options(self) -> str:
        """What of the strategy's options is not as it is by default, as JSON."""
        by_strategy = {
            "mirrored": {"collectives"},
            "multi_worker_mirrored": {"collectives"},
            "parameter_server": {"parameter_servers"},
        }
        asked = {*by_strategy.get(self.strategy, set()), "steps_per_call"}
        return json.dumps(self.model_dump(include=asked, exclude_defaults=True), sort_keys=True)


class DdpConfig(Section):
    """``ddp``: DistributedDataParallel (Li et al., 2020)."""

    bucket_mb: PositiveInt = 25
    """Gradients are summed in buckets of so many MiB, while others are still computed."""
    static_graph: bool = False
    """Whether every step uses the same parameters."""
    gradient_as_bucket_view: bool = False
    """Whether gradients live in the buckets, which spares a copy of them all."""
    compression: Literal["none", "float16", "bfloat16", "powersgd"] = "none"
    """What gradients are sent as; ``powersgd``: of low rank (Vogels et al., 2019)."""
    powersgd_rank: PositiveInt = 1


class FsdpConfig(Section):
    """``fsdp``: parameters, gradients and optimiser state in shards (FSDP2)."""

    sharding: Literal["full", "hybrid"] = "full"
    """``full``: over all workers; ``hybrid``: within groups, which hold copies of each other."""
    group_workers: PositiveInt | None = None
    """``hybrid``: workers of a group; null: those of one host."""


class DeepSpeedConfig(Section):
    """``deepspeed_zero1``, ``2`` and ``3`` (Rajbhandari et al., 2020)."""

    offload: Literal["none", "cpu"] = "none"
    """Whether the optimiser's state, and under ZeRO 3 the parameters, stay in the host's memory."""


class TorchConfig(Section):
    """PyTorch's side."""

    strategy: TorchStrategy = "ddp"
    """``single``; ``ddp``; ``fsdp``; ``deepspeed_zero1``: optimiser state in shards, ``2``: and
    gradients, ``3``: and parameters."""
    timeout_seconds: PositiveInt | None = None
    """How long a worker waits in a collective before it counts the others as lost; null: as
    PyTorch has it, half an hour over gloo, 10 minutes over NCCL."""
    ddp: DdpConfig = DdpConfig()
    fsdp: FsdpConfig = FsdpConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()

    def strategy_options(self) -> str:
        """What of the strategy's options is not as it is by default, as JSON."""
        section = getattr(self, self.strategy.partition("_")[0], None)
        asked = section.model_dump(exclude_defaults=True) if section else {}
        return json.dumps(asked, sort_keys=True)
