"""What one worker measures of itself: phases, steps, losses, memory.

The clock is ``time.perf_counter``. The device is fenced only where a phase ends, never at every
step, so that recording does not change what is recorded.
"""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipelines import events
from pipelines.metrics import METRICS

__all__ = ["Recorder", "StepClock"]

_SECONDS_BETWEEN_EVENTS = 0.2
Batch = TypeVar("Batch")


class Recorder:
    """Collects the metrics of one worker, under the names of the metrics table."""

    def __init__(self, *, traced: bool = False) -> None:
        """``traced``: norms are wanted too, which costs time and is for parity alone."""
        self.traced = traced
        self.metrics: dict[str, float] = {}
        self.losses: list[float] = []
        """This worker's training loss at every step, the mean over its part of the batch."""
        self.gradient_norms: list[float] = []
        """Of every step, if traced: the norm of the gradient over all parameters and workers,
        before clipping."""
        self.weight_norms: list[float] = []
        """After every step, if traced: the norm of all parameters and running statistics."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        events.emit("phase", name=name)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, value: float) -> None:
        """Add to a metric of the table."""
        if name not in METRICS:
            raise KeyError(f"{name} is not in the metrics table")
        self.metrics[name] = self.metrics.get(name, 0.0) + value

    def finish(self) -> dict[str, float]:
        """All metrics, with the resources that the process has used until now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.metrics["peak_memory_bytes"] = usage.ru_maxrss * 1024.0  # Linux counts in KiB
        self.metrics["cpu_seconds"] = usage.ru_utime + usage.ru_stime
        return self.metrics


class StepClock:
    """Times a training loop: its first step, the rest of the warm-up, and the timed steps.

    The loop calls ``start`` before its first batch and ``step_done`` after every step, or after
    several that lie within one of the three phases. ``fence`` waits until the device has finished;
    it is called where a phase ends. Of a run that goes on after ``done`` steps, the phases are
    those of the steps that are left; if the warm-up takes them all, none is timed.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        steps: int,
        warmup_steps: int,
        global_batch_size: int,
        fence: Callable[[], object],
        done: int = 0,
    ) -> None:
        self._recorder = recorder
        self._steps = steps
        self._first_end = done + 1
        self._warmup_end = min(done + warmup_steps, steps)
        self._global_batch_size = global_batch_size
        self._fence = fence
        self._done = done
        self._waited: float | None = None
        self._mark = self._last_event = 0.0

    @property
    def steps_to_boundary(self) -> int:
        """Steps until the next phase ends, at most so many of which may be done at once."""
        ends = (self._first_end, self._warmup_end, self._steps)
        return min(end for end in ends if end > self._done) - self._done

    def start(self) -> None:
        """The loop begins now."""
        self._mark = self._last_event = time.perf_counter()

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, the time spent waiting for each of them counted.

        A loop that does not ask for its batches here leaves the wait for them unrecorded.
        """
        self._waited = 0.0
        asked = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    @contextmanager
    def paused(self, phase: str) -> Iterator[None]:
        """Spend the time inside on a phase of its own, which is not of the loop."""
        self._fence()
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self._recorder.add(phase, took)
            self._mark += took

    def step_done(self, count: int = 1) -> None:
        """One more step has been issued, or ``count`` of them.

        Raises:
            ValueError: if a phase would have ended among them, unnoticed.
        """
        if count > self.steps_to_boundary:
            raise ValueError(f"{count} steps at once, {self.steps_to_boundary} before a phase ends")
        self._done += count
        first = self._done == self._first_end
        if first:
            self._end_phase("first_step_seconds")
        if self._done == self._warmup_end:
            self._end_phase("warmup_seconds")
            self._waited = None if self._waited is None else 0.0
        if self._done == self._steps > self._warmup_end:
            self._end_phase("train_seconds")
            self._conclude()
        if first or time.perf_counter() - self._last_event > _SECONDS_BETWEEN_EVENTS:
            self._last_event = time.perf_counter()
            events.emit("step", step=self._done, steps=self._steps)

    def _end_phase(self, name: str) -> None:
        self._fence()
        now = time.perf_counter()
        self._recorder.add(name, now - self._mark)
        self._mark = now

    def _conclude(self) -> None:
        timed_steps = self._steps - self._warmup_end
        seconds = self._recorder.metrics["train_seconds"]
        if self._waited is not None:
            self._recorder.add("data_wait_seconds", self._waited)
        self._recorder.add("step_seconds", seconds / timed_steps)
        self._recorder.add("examples_per_second", timed_steps * self._global_batch_size / seconds)
