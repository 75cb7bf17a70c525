"""The ``tandem`` command."""

import os
import signal
import sys
from types import FrameType

from pipelines.stage import DEBUG_VARIABLE, run_stage

__all__ = ["main"]


def main() -> None:
    """Run a command; an expected error ends with one line and its exit code."""
    from pipelines.cli.commands import app

    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        run_stage(app)
    except Exception as error:  # a defect of Tandem's, or of what it uses
        if os.environ.get(DEBUG_VARIABLE):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: unexpected {said} (`tandem --debug` shows where)", file=sys.stderr)
        raise SystemExit(1) from None


def _as_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """End on SIGTERM as on Ctrl-C, so that no worker outlives the command that started it."""
    raise KeyboardInterrupt
