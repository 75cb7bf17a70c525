"""The ``parity`` section of the configuration: how thorough the proof is, never how strict."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt

from pipelines.data_config import Section

__all__ = ["ParityConfig"]


def _sorted_once(values: list[int]) -> list[int]:
    return sorted(set(values))


class ParityConfig(Section):
    """What ``tandem parity`` runs. Its bounds are not settings."""

    workers: Annotated[list[PositiveInt], Field(min_length=1), AfterValidator(_sorted_once)] = [
        1,
        2,
        4,
    ]
    """Worker counts; all share one global batch, ``training.batch_size_per_worker`` examples."""
    steps: PositiveInt = 200
    """Optimiser steps of every run."""
    floor_runs: Annotated[int, Field(ge=1)] = 3
    """Perturbed runs that the self-noise is measured from."""
    permuted_runs: Annotated[int, Field(ge=0)] = 1
    """Runs with permuted batches, which show how rounding grows; they decide nothing."""
