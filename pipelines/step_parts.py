"""Where a step's time goes: four parts, by differences between a cell's run and its anatomy."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["StepParts", "step_parts"]


@dataclass(frozen=True)
class StepParts:
    """Seconds of a step, which add up to the cell's ``step_seconds``.

    A part that is small beside the runs' noise may be negative.
    """

    compute_seconds: float
    """Forward, backward and update."""
    host_seconds: float
    """What the framework's loop spends around them."""
    input_seconds: float | None
    """Waiting for the next batch; None: not measured, and part of the others."""
    communication_seconds: float
    """What of the workers' exchange is not hidden behind computation, their waiting for each
    other included."""


def step_parts(
    cell: Mapping[str, float], anatomy: Mapping[str, float], timed_steps: int
) -> StepParts:
    """The parts, from the metrics of a cell's run and of its anatomy's."""
    waited = cell.get("data_wait_seconds")
    wait = 0.0 if waited is None else waited / timed_steps
    lone = anatomy["lone_step_seconds"] - anatomy.get("lone_data_wait_seconds", 0.0)
    return StepParts(
        compute_seconds=anatomy["compute_step_seconds"],
        host_seconds=lone - anatomy["compute_step_seconds"],
        input_seconds=None if waited is None else wait,
        communication_seconds=cell["step_seconds"] - wait - lone,
    )
