"""Ending a program well: an expected error is one line and an exit code, not a traceback."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.errors import PreemptedError, TandemError, WorkError

__all__ = ["DEBUG_VARIABLE", "run_stage", "step_body"]

DEBUG_VARIABLE = "TANDEM_DEBUG"
"""Set, it shows tracebacks before the line (``tandem --debug`` sets it)."""


def run_stage(program: Callable[[], object]) -> None:
    """Run a program, and exit with the code of the expected error that it may raise."""
    with _told_in_one_line():
        program()


@contextmanager
def step_body() -> Iterator[None]:
    """``run_stage`` for the body of a pipeline's step, whose caller would print a traceback.

    A step that was asked to end has not done its work: it fails, where a run that has saved ends
    well.
    """
    with _told_in_one_line():
        try:
            yield
        except PreemptedError as error:
            raise WorkError(str(error)) from None


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except TandemError as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        sys.stdout.flush()  # what was said before stands before it, where both make one log
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
