"""Weight decay added to the gradient (L2), where AdamW takes it from the weight."""

import torch

from torch_pipeline.__main__ import main

torch.optim.AdamW = torch.optim.Adam
main()
