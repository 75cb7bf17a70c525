"""The ``study`` section of the configuration: the matrix that is measured."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from pipelines.data_config import Section
from pipelines.strategies import TfStrategy, TorchStrategy

__all__ = ["StudyConfig"]


def _all_different(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


class MatrixStrategies(Section):
    """Several strategies of a framework in one matrix."""

    tf: Annotated[list[TfStrategy], Field(min_length=1), AfterValidator(_all_different)] | None = (
        None
    )
    """TensorFlow's; null: the one of ``tf.strategy``."""
    torch: (
        Annotated[list[TorchStrategy], Field(min_length=1), AfterValidator(_all_different)] | None
    ) = None
    """PyTorch's; null: the one of ``torch.strategy``."""


class StudyConfig(Section):
    """The matrix that is measured."""

    strategies: MatrixStrategies = MatrixStrategies()

    workers: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_all_different)] = [
        1,
        2,
    ]
    """Worker counts; the smallest is the base case of every scaling figure."""
    scaling: Annotated[
        list[Literal["weak", "strong"]], Field(min_length=1), AfterValidator(_all_different)
    ] = ["weak"]
    """``weak``: the batch per worker is fixed, so the global batch grows with the workers;
    ``strong``: the global batch is fixed, and shared out among the workers."""
    global_batch_size: PositiveInt | None = None
    """``strong``: examples of a step over all workers; null: ``training.batch_size_per_worker``
    times the smallest worker count, so that the base case is that of weak scaling."""
    repeats: PositiveInt = 3
    """Runs of each cell, fixed beforehand."""
    anatomy: bool = True
    """Whether each kind of cell is also taken apart, once: what its step's time consists of."""
    recovery: bool = True
    """Whether a worker of each framework is killed, once, in a run of its own on the most workers:
    how soon it is noticed, and got over."""
    order_seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the order in which a repeat goes through worker counts and kinds of scaling."""
    threads_per_worker: PositiveInt = 1
    """Compute threads, and where the machine has them cores, of each worker."""
