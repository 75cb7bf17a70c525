"""A framework's side whose steps take longer by a share of themselves: a slow-down of known size.

``python -m benchmarks.slowed FRAMEWORK SHARE STAGE ...`` runs in the package's place: everything
is the framework's own, but that after each step it waits, busily, before the clock counts it.
"""

import sys
import time
from importlib import import_module
from typing import Any

from pipelines import recorder
from pipelines.recorder import StepClock

__all__ = ["SlowedClock"]


class SlowedClock(StepClock):
    """The clock of a loop whose steps each take ``share`` of their own time in addition."""

    share = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As every clock is made."""
        super().__init__(*arguments, **options)
        self._begun = 0.0
        """When the step began that is under way."""
        self._owed_seconds = 0.0

    def start(self) -> None:
        """The loop begins now."""
        super().start()
        self._begun = time.perf_counter()

    def step_done(self, count: int = 1) -> None:
        """The steps end only once the time that is to be lost has passed, on this very core."""
        now = waiting_since = time.perf_counter()
        self._owed_seconds += self.share * (now - self._begun)
        while now < waiting_since + self._owed_seconds:
            now = time.perf_counter()
        # Whoever takes the core away may make a wait too long: that is not owed again.
        self._owed_seconds -= now - waiting_since
        self._begun = now
        super().step_done(count)


def main() -> None:
    """Run the stage that the rest of the command line names."""
    framework, share = sys.argv[1], float(sys.argv[2])
    sys.argv[1:3] = []
    SlowedClock.share = share
    recorder.StepClock = SlowedClock  # type: ignore[misc]  # before the loop's module takes it
    import_module(f"{framework}_pipeline.__main__").main()


if __name__ == "__main__":
    main()
