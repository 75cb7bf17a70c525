"""The distribution strategies each framework offers here, by the names users know them by.

Names only: what a name builds lives in each twin's ``strategy.py``, and a test there holds the
two to this list.
"""

from typing import Literal, get_args

Framework = Literal["tf", "torch"]
TfStrategy = Literal["one_device", "multi_worker_mirrored"]
TorchStrategy = Literal["single", "ddp"]

FRAMEWORKS: tuple[Framework, ...] = get_args(Framework)
FRAMEWORK_TITLES: dict[Framework, str] = {"tf": "TensorFlow", "torch": "PyTorch"}
STRATEGIES: dict[Framework, tuple[str, ...]] = {
    "tf": get_args(TfStrategy),
    "torch": get_args(TorchStrategy),
}
SINGLE_WORKER_STRATEGIES = frozenset({"one_device", "single"})
