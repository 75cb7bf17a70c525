"""The workload's network in PyTorch, from the workload's own initial weights."""

from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.workloads import Weights, Workload
from torch_pipeline.sharding import whole

__all__ = ["build_model", "weights_of"]

_KINDS = {
    "weight": "scale",
    "bias": "bias",
    "running_mean": "mean",
    "running_var": "variance",
}
"""PyTorch's name for a normalisation's tensor -> the workloads'."""


def build_model(workload: Workload, seed: int, recompute: bool = False) -> nn.Module:
    """A network from the workload's features, by name, to logits; every one with batches first.

    With ``recompute``, activations inside its blocks are computed again for the gradient.
    """
    model: nn.Module = _network(workload, recompute)
    weights = workload.initial_weights(seed)
    with torch.no_grad():
        for name, tensor in _tensors(model).items():
            tensor.copy_(torch.from_numpy(_output_first(name, weights.pop(name))))
    if weights:
        raise ValueError(f"the network has no {', '.join(weights)}")
    return model


def weights_of(model: nn.Module) -> Weights:
    """Every parameter and running statistic, named and laid out as the workload states.

    Of a model in shards, all workers must ask together.
    """
    return {
        name: _output_last(name, whole(tensor).detach().cpu().numpy())
        for name, tensor in _tensors(model).items()
    }


def _network(workload: Workload, recompute: bool) -> nn.Module:
    module = import_module(f"torch_pipeline.workloads.{workload.name}")
    return module.build_network(workload, recompute)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        layer = path.rpartition(".")[2]  # unique: blocks do not change their layers' names
        own = dict(module.named_parameters(recurse=False)) | _buffers(module)
        for name, tensor in own.items():
            found[f"{layer}/{_kind(module, name)}"] = tensor
    return found


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    buffers = dict(module.named_buffers(recurse=False))
    return {name: tensor for name, tensor in buffers.items() if name in _KINDS}


def _kind(module: nn.Module, name: str) -> str:
    if name == "weight" and isinstance(module, nn.Embedding):
        return "embedding"
    if name == "weight" and isinstance(module, nn.Linear | nn.Conv2d):
        return "kernel"
    return _KINDS[name]


def _output_first(name: str, values: np.ndarray) -> np.ndarray:
    """From (height, width, input, output) or (input, output) to torch's layout."""
    if not name.endswith("/kernel"):
        return values
    return np.ascontiguousarray(values.transpose((3, 2, 0, 1) if values.ndim == 4 else (1, 0)))


def _output_last(name: str, values: np.ndarray) -> np.ndarray:
    if not name.endswith("/kernel"):
        return values
    return np.ascontiguousarray(values.transpose((2, 3, 1, 0) if values.ndim == 4 else (1, 0)))
