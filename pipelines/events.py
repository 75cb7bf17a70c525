"""How a child process tells its launcher where it is: marked JSON lines on standard output.

Lines survive every launcher (a pipe, torchrun, a pod's log), and a launcher that does not know
the mark shows them as what they are.
"""

import json
from contextlib import suppress
from typing import Any

__all__ = ["emit", "parse"]

_MARK = "::tandem "


def emit(event: str, **details: Any) -> None:
    """Print one event; ``details`` must be JSON values. Nobody need be there to read it."""
    with suppress(BrokenPipeError):  # a worker whose launcher was killed still has to save
        print(_MARK + json.dumps({"event": event, **details}), flush=True)


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
