"""What of a DAG's components is their own work, as they tell it while they run.

An orchestrator announces a component as it starts it; the component tells when its work began, and
how long it took. The lines reach the launcher of the DAG's process through whatever lies between.
The clock is ``time.perf_counter``, which on Linux all processes of a machine share.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines import events

__all__ = ["ComponentTimes", "announce", "component_work", "counted_processes"]

_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.posix_spawn"})
"""Python's audit events of a process that starts another."""


def announce(component: str, components: int) -> None:
    """Tell that the orchestrator begins with a component, one of so many."""
    events.emit("component", name=component, of=components, at=time.perf_counter())


@contextmanager
def component_work(component: str) -> Iterator[None]:
    """Tell that the block is the component's own work; one that fails tells nothing.

    What the work needs has been imported before.
    """
    began = time.perf_counter()
    yield
    seconds = time.perf_counter() - began
    events.emit("work", name=component, began=began, seconds=seconds)


class ComponentTimes:
    """Adds up what ``announce`` and ``component_work`` tell."""

    def __init__(self) -> None:
        self.work: dict[str, float] = {}
        """Component -> seconds of its own work; cached ones do none."""
        self.startup: dict[str, float] = {}
        """Component -> seconds from its announcement to its own work."""
        self._announced: dict[str, float] = {}

    def take(self, event: dict[str, Any]) -> None:
        """One event of the DAG's process, of whatever kind."""
        match event:
            case {"event": "component", "name": name, "at": at}:
                self._announced[name] = at
            case {"event": "work", "name": name, "began": began, "seconds": seconds}:
                self.work[name] = seconds
                if name in self._announced:
                    self.startup[name] = began - self._announced[name]


class _Counter:
    def __init__(self) -> None:
        self.count = 0
        self._counting = True

    def __call__(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self._counting and event in _STARTS:
            self.count += 1

    def stop(self) -> None:
        self._counting = False


@contextmanager
def counted_processes() -> Iterator[_Counter]:
    """Count in ``count`` the processes that this one starts within the block.

    Once per process: Python takes no audit hook back, so an idle one stays.
    """
    counter = _Counter()
    sys.addaudithook(counter)
    try:
        yield counter
    finally:
        counter.stop()
