"""What one worker measures of itself: phases, steps, losses, memory.

The clock is ``time.perf_counter``. The device is fenced only where a phase ends, never at every
step, so that recording does not change what is recorded.
"""

import os
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil

from pipelines import events
from pipelines.goodput import Spent, spend
from pipelines.metrics import METRICS, PHASES
from pipelines.resources import HostMeter

__all__ = ["Recorder", "StepClock", "process_age"]

_SECONDS_BETWEEN_EVENTS = 0.2
Batch = TypeVar("Batch")


def process_age() -> float:
    """Seconds since this process was started, to a hundredth: the kernel counts in such ticks."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # the 22nd, after two that are cut off
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


class Recorder:
    """Collects the metrics of one worker, under the names of the metrics table."""

    def __init__(
        self,
        *,
        traced: bool = False,
        born: float | None = None,
        meter: HostMeter | None = None,
    ) -> None:
        """``traced``: norms are wanted too, which costs time and is for parity alone.

        ``born``: ``time.perf_counter()`` at the process's start, if the way to the first step
        counts. ``meter`` is read where the timed steps begin and end.
        """
        self.traced = traced
        self.born = born
        self.meter = meter
        self.metrics: dict[str, float] = {}
        self.losses: list[float] = []
        """This worker's training loss at every step, the mean over its part of the batch."""
        self.gradient_norms: list[float] = []
        """Of every step, if traced: the norm of the gradient over all parameters and workers,
        before clipping."""
        self.weight_norms: list[float] = []
        """After every step, if traced: the norm of all parameters and running statistics."""
        self.steps = 0
        """Steps that this process has done, as far as it has told."""
        self.aside: defaultdict[tuple[str, str], float] = defaultdict(float)
        """By phase and category of the goodput ledger: what within a phase belongs elsewhere."""
        self._phase: str | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time spent inside is that phase's, and not that of the phase around it, if any."""
        events.emit("phase", name=name, spent=self.spent())
        before = self.enter(name)
        try:
            yield
        finally:
            self.enter(before)

    def enter(self, phase: str | None) -> str | None:
        """From now on time is that phase's; returns the one whose it was until now."""
        now = time.perf_counter()
        if self._phase is not None:
            self.add(self._phase, now - self._since)
        before, self._phase, self._since = self._phase, phase, now
        return before

    @contextmanager
    def waiting_for_others(self) -> Iterator[None]:
        """Time spent inside is the phase's that it lies in, but idle at a barrier in the ledger."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.set_aside("barrier", time.perf_counter() - started)

    def set_aside(self, category: str, seconds: float) -> None:
        """So much of the present phase belongs to another category of the ledger than the phase."""
        if self._phase is not None:
            self.aside[self._phase, category] += seconds

    def add(self, name: str, value: float) -> None:
        """Add to a metric of the table."""
        if name not in METRICS:
            raise KeyError(f"{name} is not in the metrics table")
        self.metrics[name] = self.metrics.get(name, 0.0) + value

    def spent(self) -> Spent:
        """Where this process's life has gone until now, to the microsecond; without zeros."""
        phases = {name: self.metrics[name] for name in PHASES if name in self.metrics}
        if self._phase is not None:
            so_far = time.perf_counter() - self._since
            phases[self._phase] = phases.get(self._phase, 0.0) + so_far
        found = spend(phases, self.aside, self._usual_step(phases))
        return {category: round(seconds, 6) for category, seconds in found.items() if seconds}

    def finish(self) -> dict[str, float]:
        """All metrics, with the resources used until now.

        Processor time is also that of what the process has started, such as compilers.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.metrics["peak_memory_bytes"] = usage.ru_maxrss * 1024.0  # Linux counts in KiB
        self.metrics["cpu_seconds"] = _cpu_seconds()
        return self.metrics

    def _usual_step(self, phases: dict[str, float]) -> float:
        """A timed step's seconds; before there are any, a warm-up step's; 0 after a single step."""
        if "step_seconds" in self.metrics:
            return self.metrics["step_seconds"]
        others = phases.get("warmup_seconds", 0.0) + phases.get("train_seconds", 0.0)
        return others / (self.steps - 1) if self.steps > 1 else 0.0


def _cpu_seconds() -> float:
    """Of this process, and of those that it has started and waited for, or still has."""
    seconds = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


class StepClock:
    """Times a training loop: its first step, the rest of the warm-up, and the timed steps.

    The loop calls ``start`` before its first batch and ``step_done`` after every step, or after
    several that lie within one of the three phases. ``fence`` waits until the device has finished;
    it is called where a phase ends. Of a run that goes on after ``done`` steps, the phases are
    those of the steps that are left; if the warm-up takes them all, none is timed. What follows
    the last step, until another phase begins, is ``exit_seconds``: the loop has to be left.
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
        self._start = self._done = done
        self._first_end = self._end = done + 1
        self._warmup_end = min(done + warmup_steps, steps)
        self._global_batch_size = global_batch_size
        self._fence = fence
        self._waited: float | None = None
        """Since it was last set aside; None: nobody measures it."""
        self._last_event = 0.0

    @property
    def steps_to_boundary(self) -> int:
        """Steps until the next phase ends, at most so many of which may be done at once."""
        return self._end - self._done

    def start(self) -> None:
        """The loop begins now."""
        self._recorder.enter("first_step_seconds")
        self._last_event = time.perf_counter()

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, the time spent waiting for each of them counted.

        A loop that does not ask for its batches here leaves the wait for them unrecorded.
        """
        self._waited = 0.0
        asked = time.perf_counter()
        for batch in batches:
            self._waited += time.perf_counter() - asked
            yield batch
            del batch  # or its memory would be held while the next one is made
            asked = time.perf_counter()

    @contextmanager
    def paused(self, phase: str) -> Iterator[None]:
        """Spend the time inside on a phase of its own, which is not of the loop."""
        self._fence()
        with self._recorder.phase(phase):
            yield

    def step_done(self, count: int = 1) -> None:
        """One more step has been issued, or ``count`` of them.

        Raises:
            ValueError: if a phase would have ended among them, unnoticed.
        """
        left = self._end - self._done
        if count > left:
            raise ValueError(f"{count} steps at once, {left} before a phase ends")
        self._done += count
        if count == left:
            self._end_phase()
        if time.perf_counter() - self._last_event > _SECONDS_BETWEEN_EVENTS:
            self._tell()

    def _end_phase(self) -> None:
        recorder = self._recorder
        recorder.steps = self._done - self._start
        self._fence()
        first = self._done == self._first_end
        if first:
            recorder.enter("warmup_seconds")
            if recorder.born is not None:
                age = time.perf_counter() - recorder.born
                recorder.add("time_to_first_step_seconds", age)
            # The first step is like no other, and its wait like no other's.
            self._waited = None if self._waited is None else 0.0
        self._set_waits_aside()
        if self._done == self._steps:
            recorder.enter("exit_seconds")
            if self._done > self._warmup_end:
                self._conclude()
        elif self._done == self._warmup_end:
            if recorder.meter is not None:
                recorder.meter.begin()
            recorder.enter("train_seconds")
        self._end = self._warmup_end if self._done < self._warmup_end else self._steps
        if first:
            self._tell()

    def _conclude(self) -> None:
        recorder, timed_steps = self._recorder, self._steps - self._warmup_end
        seconds = recorder.metrics["train_seconds"]
        if self._waited is not None:
            recorder.add("data_wait_seconds", recorder.aside["train_seconds", "data_wait"])
        recorder.add("step_seconds", seconds / timed_steps)
        recorder.add("examples_per_second", timed_steps * self._global_batch_size / seconds)
        if recorder.meter is not None:
            recorder.metrics.update(recorder.meter.end())

    def _tell(self) -> None:
        recorder, self._last_event = self._recorder, time.perf_counter()
        recorder.steps = self._done - self._start
        self._set_waits_aside()
        if recorder.meter is not None:
            recorder.meter.keep_up()
        events.emit("step", step=self._done, steps=self._steps, spent=recorder.spent())

    def _set_waits_aside(self) -> None:
        if self._waited:
            self._recorder.set_aside("data_wait", self._waited)
            self._waited = 0.0
