"""The last example of every batch is left out."""

from typing import Any

from torch_pipeline import train
from torch_pipeline.__main__ import main

mean_loss = train.mean_loss


def dropping(workload: Any, logits: Any, target: Any) -> Any:
    return mean_loss(workload, logits[:-1], target[:-1])


train.mean_loss = dropping
main()
