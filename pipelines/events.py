"""How a child process tells its launcher where it is: marked JSON lines on standard output.

Lines survive every launcher (a pipe, torchrun, a pod's log), and a launcher that does not know
the mark shows them as what they are.
"""

import json
import sys
from contextlib import suppress
from typing import Any

__all__ = ["emit", "parse", "say"]

_MARK = "::tandem "


def emit(event: str, **details: Any) -> None:
    """Print one event; ``details`` must be JSON values. Nobody need be there to read it."""
    with suppress(BrokenPipeError):  # a worker whose launcher was killed still has to save
        say(_MARK + json.dumps({"event": event, **details}))


def say(line: str) -> None:
    """Print a line by one write: threads share standard output, and the processes of a pod do.

    ``print`` makes two of it, between which another's line may come.
    """
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def parse(line: str) -> dict[str, Any] | None:
    """The event in a line of output, or None for any other line."""
    said = line.lstrip()  # a runner in between may indent what its steps print
    if not said.startswith(_MARK):
        return None
    try:
        event = json.loads(said.removeprefix(_MARK))
    except ValueError:
        return None  # a line that was cut off, or somebody else's
    return event if isinstance(event, dict) else None
