"""BatchNorm's epsilon as Keras has it by default, 1e-3, against PyTorch's 1e-5."""

from torch_pipeline.__main__ import main
from torch_pipeline.workloads import vision

assert vision.EPSILON == 1e-5
vision.EPSILON = 1e-3
main()
