"""What a training worker needs of a framework's package, found by the twins' common names."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pipelines.strategies import Framework
from pipelines.workloads import Weights

__all__ = ["Twin"]


@dataclass(frozen=True)
class Twin:
    """The functions in which the frameworks differ, by their names in the twins' files."""

    framework: Framework
    build_strategy: Callable[..., Any]
    gather_over_workers: Callable[..., Any]
    describe_software: Callable[[], dict[str, str]]
    save_state: Callable[..., Callable[[], None]]
    load_state: Callable[..., None]
    train: Callable[..., Any]
    evaluate: Callable[..., dict[str, float]]
    weights_of: Callable[..., Weights]

    @classmethod
    def load(cls, framework: Framework) -> "Twin":
        """Import the framework's package, which takes seconds."""
        files = {
            "build_strategy": "strategy",
            "gather_over_workers": "strategy",
            "describe_software": "strategy",
            "save_state": "checkpoint",
            "load_state": "checkpoint",
            "train": "train",
            "evaluate": "evaluate",
            "weights_of": "model",
        }
        package = f"{framework}_pipeline"
        return cls(
            framework,
            **{
                name: getattr(import_module(f"{package}.{file}"), name)
                for name, file in files.items()
            },
        )
