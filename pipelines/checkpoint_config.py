"""The ``checkpoint`` section of the configuration: when a training run's state is saved."""

from pydantic import PositiveFloat, PositiveInt

from pipelines.data_config import Section

__all__ = ["CheckpointConfig"]


class CheckpointConfig(Section):
    """Besides these times, a run that is asked to end (SIGTERM) saves where it is."""

    every_steps: PositiveInt | None = None
    """Save after every so many steps; null: not by steps."""
    every_minutes: PositiveFloat | None = None
    """Save when so many minutes have passed since the last time; null: not by time."""
    keep: PositiveInt = 3
    """How many of the newest are kept."""
    asynchronous: bool = False
    """Whether training goes on while a copy of the state is written."""
