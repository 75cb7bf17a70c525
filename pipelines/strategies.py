"""The distribution strategies each framework offers here, by the names users know them by.

Names only: what a name builds lives in each twin's ``strategy.py``, and a test there holds the
two to this list.
"""

from typing import Literal, get_args

Framework = Literal["tf", "torch"]
TfStrategy = Literal["one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu"]
TorchStrategy = Literal[
    "single", "ddp", "fsdp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3"
]

FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)
FRAMEWORK_TITLES: dict[Framework, str] = {"tf": "TensorFlow", "torch": "PyTorch"}
STRATEGIES: dict[Framework, tuple[str, ...]] = {
    "tf": get_args(TfStrategy),
    "torch": get_args(TorchStrategy),
}
ALONE: dict[Framework, str] = {"tf": "one_device", "torch": "single"}
"""What one worker by itself trains with."""
DATA_PARALLEL: dict[Framework, str] = {"tf": "multi_worker_mirrored", "torch": "ddp"}
"""What several processes train with, each a whole model, their gradients summed."""
SINGLE_WORKER_STRATEGIES = frozenset(ALONE.values())
ONE_PROCESS_STRATEGIES = frozenset({"mirrored", "tpu"})
"""Those in which one process trains all the replicas of its host."""
ASYNCHRONOUS_STRATEGIES = frozenset({"parameter_server"})
"""Those in which no two runs take the same steps, so that there is no parity to prove."""
FIXED_WORKERS_STRATEGIES = frozenset(
    {"parameter_server", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3"}
)
"""Those whose checkpoints only as many workers can read: shards of DeepSpeed's are one worker's
each, and a step of parameter servers is an update per worker."""
