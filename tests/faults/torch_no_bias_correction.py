"""Adam without its bias correction: both averages start at zero and are taken as they are."""

from typing import Any

import torch

from torch_pipeline.__main__ import main


class Uncorrected(torch.optim.AdamW):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight] = {
                    "step": torch.tensor(1e6),  # after so many steps there is nothing to correct
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }


torch.optim.AdamW = Uncorrected
main()
