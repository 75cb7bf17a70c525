"""Keeping a training run: between two steps its workers decide together to save, or to stop.

Each worker sees something that the others do not: its own SIGTERM, its own part of the loss, and
rank 0 the clock. So they gather all of it, about once a second, at steps on which they have agreed
before: a collective at every step would become part of what is measured.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from pipelines import events
from pipelines.checkpoint_config import CheckpointConfig
from pipelines.checkpoints import Checkpoint, Checkpoints
from pipelines.errors import DivergedError, WorkError
from pipelines.preemption import Preemption
from pipelines.recorder import Recorder, StepClock
from pipelines.run_folder import DIVERGED_NAME
from pipelines.twin import Twin
from pipelines.worker import Worker

__all__ = ["Keeper", "Saver", "Unsaved"]

_SECONDS_BETWEEN_CHECKS = 1.0
_VALUES_GATHERED = 4
"""At a check, from each worker."""

_Finish = Callable[[], None]
"""Waits until what a worker writes is written."""


class Keeper(Protocol):
    """What a training loop asks between its steps."""

    start: int
    """Steps done before; the loop goes on from there."""

    def attach(
        self,
        model: Any,
        optimizer: Any,
        clock: StepClock,
        flush_losses: Callable[[], None],
    ) -> None:
        """Take what there is to save, once it is built, and give it its earlier state.

        ``flush_losses`` brings the recorder's losses up to date.
        """

    def steps_to_check(self, done: int) -> int:
        """How many steps may be done at once after ``done``."""

    def stop_after(self, done: int) -> bool:
        """Called by all workers after every step, or several; whether training is to stop."""


class Unsaved:
    """Of a run that is not kept."""

    start = 0

    def attach(
        self, model: Any, optimizer: Any, clock: StepClock, flush_losses: Callable[[], None]
    ) -> None:
        """Nothing to do."""

    def steps_to_check(self, done: int) -> int:
        """As many as there are."""
        return 1 << 30

    def stop_after(self, done: int) -> bool:
        """Never."""
        return False


class Saver:
    """Of a run whose state is saved, and which goes on from the newest whole checkpoint."""

    def __init__(
        self,
        twin: Twin,
        config: CheckpointConfig,
        *,
        steps: int,
        store: Checkpoints,
        identity: Mapping[str, str],
        worker: Worker,
        strategy: Any,
        recorder: Recorder,
        preemption: Preemption,
    ) -> None:
        """Find the checkpoint to go on from; all workers of ``strategy`` must do so together.

        ``identity``: what must be as it was for a run to go on.

        Raises:
            InputError: if there are checkpoints, but none is whole, or they are another run's.
        """
        self.preempted_at: int | None = None
        """The step after which the run stopped because it was asked to end."""
        self.diverged_at: int | None = None
        """The first step, counted from 1, whose loss was not finite."""
        self.start = 0
        self._twin = twin
        self._config = config
        self._steps = steps
        self._store = store
        self._identity = identity
        self._worker = worker
        self._strategy = strategy
        self._recorder = recorder
        self._preemption = preemption
        found = self._find()
        self._earlier = found.losses if found else []
        self._gathered: list[float] = []
        self._next_check = self.start + 1
        self._writing: threading.Thread | None = None

    @property
    def curve(self) -> list[float]:
        """The global batch's loss at every step so far; all workers must ask together."""
        new = np.array(self._recorder.losses[len(self._gathered) :])
        if len(new):
            self._gathered += self._gather(new).mean(axis=0).tolist()
        return [*self._earlier, *self._gathered]

    def attach(
        self,
        model: Any,
        optimizer: Any,
        clock: StepClock,
        flush_losses: Callable[[], None],
    ) -> None:
        """Take what there is to save, once it is built, and give it its earlier state."""
        self._preemption.watch()  # Lightning puts a handler of its own there
        self._model, self._optimizer = model, optimizer
        self._clock, self._flush_losses = clock, flush_losses
        self._recorder.add("checkpoint_seconds", 0.0)
        with self._recorder.phase("build_seconds"):
            self._meet()
            # TensorFlow traces it: here, where no step has to wait for that.
            self._gather(np.zeros(_VALUES_GATHERED))
        with self._recorder.phase("restore_seconds"):
            if self.start:
                state = self._store.state_of(self.start)
                self._twin.load_state(state, self._strategy, model, optimizer, self._worker)
        self._checked = (self.start, time.monotonic())
        self._saved_at = time.monotonic()

    def steps_to_check(self, done: int) -> int:
        """How many steps may be done at once after ``done``."""
        return self._next_check - done

    def stop_after(self, done: int) -> bool:
        """Save where it is time to, and tell whether the run has been asked to end.

        Raises:
            DivergedError: if the loss is no longer finite.
            WorkError: if the run is to end and cannot be saved.
        """
        last = done == self._steps
        if done < self._next_check and not last:
            return False
        mine = np.array([*self._noticed(done)])
        with self._recorder.waiting_for_others():
            everyone = self._gather(mine)
        asked, diverged, unsaved_seconds, pace = everyone.T
        if (diverged > 0).any():
            self._report_divergence(int(diverged[diverged > 0].min()))
        if last:
            if self._writing is not None:
                with self._recorder.phase("checkpoint_seconds"):
                    self._settle()
            return False
        stop = bool(asked.any())
        if stop or self._is_due(done, unsaved_seconds[0]):
            self._save(done, stop)
        if stop:
            self.preempted_at = done
        self._plan_next_check(done, pace[0])
        return stop

    def _find(self) -> Checkpoint | None:
        """Rank 0's choice, which becomes everybody's; only rank 0 has the checkpoint itself."""
        newest: Checkpoint | None = None
        damages: list[str] = []
        if self._worker.is_chief:
            self._store.discard_unfinished()
            self._store.require_same_run(self._identity)
            newest, damages = self._store.newest()
        with self._recorder.waiting_for_others():
            chosen = self._gather(np.array([float(newest.step if newest else 0)]))
        self.start = int(chosen[0, 0])
        for damage in damages:
            _tell(f"{damage}; the one before it is used")
        if newest is not None:
            events.emit("resumed", step=self.start)
            _tell(f"going on from step {self.start}")
        return newest

    def _noticed(self, done: int) -> tuple[float, float, float, float]:
        """Asked to end; first step whose loss is not finite, or 0; seconds unsaved and a step."""
        self._flush_losses()
        steps_before, then = self._checked
        now = time.monotonic()
        finite = np.isfinite(self._recorder.losses[steps_before - self.start :])
        diverged = 0 if finite.all() else steps_before + int(np.argmin(finite)) + 1
        pace = (now - then) / max(done - steps_before, 1)
        return float(self._preemption.asked), float(diverged), now - self._saved_at, pace

    def _is_due(self, done: int, unsaved_seconds: float) -> bool:
        by_steps, by_minutes = self._config.every_steps, self._config.every_minutes
        if by_steps is not None and done % by_steps == 0:
            return True
        return by_minutes is not None and unsaved_seconds >= by_minutes * 60

    def _plan_next_check(self, done: int, pace: float) -> None:
        steps = max(1, int(_SECONDS_BETWEEN_CHECKS / max(pace, 1e-6)))
        if self._config.every_steps is not None:
            steps = min(steps, self._config.every_steps - done % self._config.every_steps)
        self._next_check = done + steps
        self._checked = (done, time.monotonic())

    def _save(self, done: int, stop: bool) -> None:
        """Save; if the run goes on meanwhile, whether it went well comes to light later."""
        with self._clock.paused("checkpoint_seconds"):
            self._settle()
            curve = self.curve
            # Before any worker writes: those who wrote alone would wait for the others.
            failure = self._failure_of(lambda: self._begin(done))
            if self._any(failure is not None):
                saved = self._give_up(done, failure)
            elif self._config.asynchronous and not stop:
                finish, saved = self._write(done, asynchronous=True), True
                self._writing = threading.Thread(target=self._complete, args=(finish, done, curve))
                self._writing.start()
            else:
                saved = self._complete_together(self._write(done, asynchronous=False), done, curve)
            if stop and not saved:
                raise WorkError(f"asked to end after step {done}, which could not be saved")
        self._saved_at = time.monotonic()

    def _begin(self, done: int) -> None:
        if self._worker.is_chief:
            self._store.begin(done)

    def _write(self, done: int, *, asynchronous: bool) -> _Finish:
        """Have the framework write its state; what to call to wait for the end."""
        try:
            return self._twin.save_state(
                self._store.unfinished_state(done),
                self._strategy,
                self._model,
                self._optimizer,
                self._worker,
                asynchronous,
            )
        except Exception as error:  # a framework's, of any kind: told where the end would have been
            failure = error

        def fail() -> None:
            raise failure

        return fail

    def _complete_together(self, finish: _Finish, done: int, curve: list[float]) -> bool:
        """Once all workers have written; whether it is a checkpoint now, known to all of them."""
        failure = self._failure_of(finish)
        if self._any(failure is not None):
            return self._give_up(done, failure or "a worker could not write its part")
        if self._worker.is_chief:
            failure = self._failure_of(lambda: self._commit(done, curve))
        if self._any(failure is not None):
            return self._give_up(done, failure)
        return True

    def _complete(self, finish: _Finish, done: int, curve: list[float]) -> None:
        """The same by rank 0 alone, whose own end comes after the others'."""
        failure = self._failure_of(finish)
        if self._worker.is_chief:
            failure = failure or self._failure_of(lambda: self._commit(done, curve))
        if failure is not None:
            self._give_up(done, failure)

    def _commit(self, done: int, curve: list[float]) -> None:
        self._store.commit(done, self._worker.all_replicas, self._identity, curve)
        events.emit("saved", step=done)

    def _give_up(self, done: int, failure: str | None) -> bool:
        """Tell why it could not be saved; False, for that it was not."""
        text = f"what was reached after step {done} could not be saved ({failure})"
        if self._worker.is_chief:
            self._store.discard(done)
            _tell(text)
        elif failure is not None:
            print(text, file=sys.stderr, flush=True)
        return False

    def _failure_of(self, action: Callable[[], object]) -> str | None:
        try:
            action()
        except Exception as error:  # a framework's, or the disk's
            return _reason(error)
        return None

    def _any(self, mine: bool) -> bool:
        """Whether it is so for any worker."""
        return bool(self._gather(np.array([float(mine)])).any())

    def _settle(self) -> None:
        """Wait for the checkpoint that is still being written, if one is."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None

    def _report_divergence(self, step: int) -> None:
        self.diverged_at = step
        raise DivergedError(
            f"the loss was not finite at step {step}, whose examples are in {DIVERGED_NAME}; "
            "a lower learning rate or training.optimizer.clip_norm may help"
        )

    def _meet(self) -> None:
        """Wait for the other workers."""
        with self._recorder.waiting_for_others():
            self._gather(np.zeros(1))

    def _gather(self, values: Any) -> Any:
        return self._twin.gather_over_workers(self._strategy, values)


def _tell(text: str) -> None:
    events.emit("note", text=text)


def _reason(error: Exception) -> str:
    full = os.strerror(errno.ENOSPC)
    if full in str(error):  # which TensorFlow wraps in the names of its operations
        return full
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
