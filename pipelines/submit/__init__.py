"""Onto a cluster: pipelines for Kubeflow, training jobs for Kubernetes, and what checks both."""
