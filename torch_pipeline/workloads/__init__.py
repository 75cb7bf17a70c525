"""PyTorch networks and their transforms, a module per workload."""
