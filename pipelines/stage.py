"""Ending a program well: an expected error is one line and an exit code, not a traceback."""

import os
import sys
import traceback
from collections.abc import Callable

from pipelines.errors import TandemError

__all__ = ["DEBUG_VARIABLE", "run_stage"]

DEBUG_VARIABLE = "TANDEM_DEBUG"
"""Set, it shows tracebacks before the line (``tandem --debug`` sets it)."""


def run_stage(program: Callable[[], object]) -> None:
    """Run a program, and exit with the code of the expected error that it may raise."""
    try:
        program()
    except TandemError as error:
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
