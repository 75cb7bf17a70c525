"""Keras networks and TensorFlow Transform, a module per workload."""
