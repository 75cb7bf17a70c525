"""Asking a server how something goes, which goes on while the server is away."""

import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.errors import PreemptedError, UnansweredError
from pipelines.preemption import Preemption

__all__ = ["answer_to"]

_MINUTES = 10
"""For which a server may be away: what it is asked about took hours, and does not need it."""
_SECONDS_BETWEEN = 5.0

Answer = TypeVar("Answer")


def answer_to(
    ask: Callable[[], Answer],
    tell: Callable[[str], None],
    preemption: Preemption | None = None,
) -> Answer:
    """What ``ask`` returns, called until it does; ``tell`` is called once if that takes a while.

    Raises:
        UnansweredError: as ``ask`` does, if it goes on doing so.
        PreemptedError: if ``preemption`` is asked for meanwhile.
    """
    preemption = preemption or Preemption()
    away_since: float | None = None
    while True:
        try:
            return ask()
        except UnansweredError as error:
            if away_since is None:
                away_since = time.monotonic()
                tell(f"{error}; asking again, for {_MINUTES} minutes at most")
            if time.monotonic() - away_since >= _MINUTES * 60:
                raise
        preemption.wait(_SECONDS_BETWEEN)
        if preemption.asked:
            raise PreemptedError("asked to end while a server did not answer")
