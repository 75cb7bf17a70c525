"""The ``tandem`` command."""

import signal
from types import FrameType

from pipelines.stage import run_stage

__all__ = ["main"]


def main() -> None:
    """Run a command; an expected error ends with one line and its exit code."""
    from pipelines.cli.commands import app

    signal.signal(signal.SIGTERM, _as_interrupt)
    run_stage(app)


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C, so that no worker outlives the command that started it."""
    raise KeyboardInterrupt
