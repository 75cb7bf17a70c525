"""Gradients take 50 ms longer to be summed over the workers."""

import time
from typing import Any

from lightning.pytorch.strategies import ddp
from torch import Tensor, distributed
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from torch_pipeline.__main__ import main


def late_hook(state: None, bucket: distributed.GradBucket) -> Future[Tensor]:
    time.sleep(0.05)
    return default_hooks.allreduce_hook(state, bucket)


class Slow(DistributedDataParallel):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.register_comm_hook(None, late_hook)


ddp.DistributedDataParallel = Slow
main()
