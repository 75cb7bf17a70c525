"""The state of a training run, written to a folder and read again, by ``distributed.checkpoint``.

DeepSpeed's is written by DeepSpeed, whose shards are its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from pipelines.errors import WorkError
from pipelines.worker import Worker
from torch_pipeline.sharding import Zero

__all__ = ["load_state", "save_state"]

_TAG = "zero"


def save_state(
    folder: Path,
    strategy: Strategy,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    worker: Worker,
    asynchronous: bool = False,
) -> Callable[[], None]:
    """Write model and optimiser, schedule, loss scale and random numbers; all workers together.

    Returns what waits for the end, at once unless ``asynchronous``: then a copy is written while
    training goes on.

    Raises:
        WorkError: if a worker could not write its part.
    """
    if isinstance(strategy, Zero):
        strategy.deepspeed_engine.save_checkpoint(
            str(folder), tag=_TAG, client_state={"rest": _rest(strategy)}, save_latest=False
        )
        return lambda: None
    state = _state(strategy, model, optimizer, worker)
    if not asynchronous:
        with _failures_told():
            checkpoint.save(state, checkpoint_id=folder)
        return lambda: None
    writing = checkpoint.async_save(state, checkpoint_id=folder, process_group=_own_group())

    def finish() -> None:
        with _failures_told():
            writing.result()

    return finish


def load_state(
    folder: Path,
    strategy: Strategy,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    worker: Worker,
) -> None:
    """Read what ``save_state`` wrote, on as many workers or others; all must do so together."""
    if isinstance(strategy, Zero):
        _, client = strategy.deepspeed_engine.load_checkpoint(str(folder), tag=_TAG)
        _set_rest(strategy, client["rest"])
        return
    state = _state(strategy, model, optimizer, worker)
    checkpoint.load(state, checkpoint_id=folder)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    _set_rest(strategy, state["rest"])


@contextmanager
def _failures_told() -> Iterator[None]:
    """Name the first worker's failure; PyTorch's own error is no ``Exception``."""
    try:
        yield
    except checkpoint.CheckpointException as error:
        failure, _ = next(iter(error.failures.values()))
        raise WorkError(str(failure)) from error


@cache
def _own_group() -> distributed.ProcessGroup | None:
    """For the thread that writes, whose collectives come between those of the steps."""
    return distributed.new_group(backend="gloo") if distributed.is_initialized() else None


def _state(
    strategy: Strategy, model: nn.Module, optimizer: torch.optim.Optimizer, worker: Worker
) -> dict[str, Any]:
    of_model, of_optimizer = get_state_dict(model, optimizer)
    return {"model": of_model, "optimizer": of_optimizer, "rest": _rest(strategy)}


def _rest(strategy: Strategy) -> dict[str, Any]:
    """What is small and the same on every worker."""
    schedule = strategy.lightning_module.lr_schedulers()
    return {
        "schedule": schedule.state_dict(),
        "loss_scale": strategy.precision_plugin.state_dict(),
        "random": torch.get_rng_state(),
    }


def _set_rest(strategy: Strategy, rest: dict[str, Any]) -> None:
    strategy.lightning_module.lr_schedulers().load_state_dict(rest["schedule"])
    strategy.precision_plugin.load_state_dict(rest["loss_scale"])
    torch.set_rng_state(rest["random"])
