"""SIGTERM: a worker that is to give its machine back notes it, and stops between two steps."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from types import FrameType

__all__ = ["LAUNCHER_VARIABLE", "Preemption", "end_with_launcher"]

LAUNCHER_VARIABLE = "TANDEM_LAUNCHER"
"""Process id of the launcher that started this process."""
_PR_SET_PDEATHSIG = 1

_watching: "ContextVar[tuple[Preemption, ...]]" = ContextVar("watching", default=())
"""Those whose blocks this one is in, the outermost first."""


class Preemption:
    """Whether this process has been asked to end, which then does not end it at once."""

    def __init__(self) -> None:
        self.asked = False
        self._pass_on: Callable[[], None] = lambda: None
        # Of what wakes a thread this alone may be used in a signal's handler that interrupts it.
        self._woken: SimpleQueue[None] = SimpleQueue()

    def watch(self) -> None:
        """From now on note SIGTERM; again, after a library has put its own handler there."""
        signal.signal(signal.SIGTERM, self._note)

    def unwatch(self) -> None:
        """Let SIGTERM end this process at once."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @contextmanager
    def watched(self) -> Iterator["Preemption"]:
        """Note SIGTERM in the block, as whoever watches around it does too.

        In a thread, which gets no signals, nothing is noted.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before, around = signal.getsignal(signal.SIGTERM), _watching.get()

        def note(number: int, frame: FrameType | None) -> None:
            for each in (*around, self):
                each._note(number, frame)

        signal.signal(signal.SIGTERM, note)
        token = _watching.set((*around, self))
        try:
            yield self
        finally:
            _watching.reset(token)
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def passed_on(self, to: Callable[[], None]) -> Iterator[None]:
        """Call ``to`` at each SIGTERM that is noted in the block."""
        self._pass_on = to
        try:
            yield
        finally:
            self._pass_on = lambda: None

    def wait(self, seconds: float) -> None:
        """Wait so long, or until SIGTERM is noted; ``time.sleep`` would go on after it."""
        if not self.asked:
            with suppress(Empty):
                self._woken.get(timeout=seconds)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._woken.put(None)
        self._pass_on()


def end_with_launcher() -> None:
    """Have the kernel send this process SIGTERM when its launcher dies, however it dies."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is None or int(launcher) != os.getppid():
        return  # started by somebody whom the launcher started
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(launcher):  # it died in the meantime
        os.kill(os.getpid(), signal.SIGTERM)
