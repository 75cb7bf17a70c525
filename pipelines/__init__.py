"""What both frameworks share, once: configuration, data, workloads, tracking, comparison.

Nothing below this package imports TensorFlow or PyTorch. The way through the house is
``configs -> ingest -> {tf_pipeline | torch_pipeline} -> tracking -> compare``.
"""

__version__ = "0.1.0"
