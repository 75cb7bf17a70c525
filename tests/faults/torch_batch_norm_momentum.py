"""BatchNorm's momentum in the other convention: the share of the new value, not of the old."""

from torch_pipeline.__main__ import main
from torch_pipeline.workloads import vision

vision.MOMENTUM = 1 - vision.MOMENTUM
main()
