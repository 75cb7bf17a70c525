"""A framework's side that measures in every other block of its steps, and otherwise counts them.

``python -m benchmarks.measured FRAMEWORK BLOCK_STEPS STAGE ...`` runs in the package's place. After
the warm-up, blocks of steps with all that measures (clock, waits, ledger, events, MLflow's system
metrics) take turns with blocks without, A B B A, so that whatever drifts does so for both.
"""

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pipelines import recorder
from pipelines.recorder import StepClock

__all__ = ["BLOCKS_NAME", "SwitchedClock"]

BLOCKS_NAME = "blocks.json"
"""In the folder of the run: whether each block was measured, its seconds, and the processor seconds
that the process spent meanwhile; and those that sampling the system has taken, with the number of
samples."""

_SECONDS_BETWEEN_LOOKS = 0.05
Batch = TypeVar("Batch")


class SwitchedClock(StepClock):
    """The clock of a loop that is measured in turns."""

    block_steps = 0
    output = Path()

    measuring = True
    """Now."""
    blocks: list[tuple[bool, float, float]]
    """Of those that are over: whether it was measured, its seconds, and the process's own."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """As every clock is made."""
        super().__init__(*arguments, **options)
        self.blocks = []
        self._block_end = self._warmup_end
        self._block_began: tuple[float, float] | None = None

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; the time that they take is counted while it measures."""
        source = iter(batches)
        timed = super().waiting(source)
        while True:  # batches of training never end
            yield next(timed if self.measuring else source)

    def step_done(self, count: int = 1) -> None:
        """One more step, or ``count`` of them, measured or merely counted."""
        if self._done + count < self._block_end:
            if self.measuring:
                super().step_done(count)
            else:
                self._done += count
            return
        if self.measuring:
            super().step_done(count)
        else:
            self._done += count
        self._turn()

    def _turn(self) -> None:
        self._fence()
        if self._block_began is not None:
            began, spent = self._block_began
            now, all_spent = time.perf_counter(), time.process_time()
            self.blocks.append((self.measuring, now - began, all_spent - spent))
        self._block_end += self.block_steps
        if self._block_end >= self._steps:  # so few are left that they make no block
            self._block_end = 2 * self._steps
            SwitchedClock.measuring = True
            self._keep()
        else:
            SwitchedClock.measuring = len(self.blocks) % 4 in (0, 3)
        self._block_began = time.perf_counter(), time.process_time()

    def _keep(self) -> None:
        text = json.dumps(
            {
                "blocks": self.blocks,
                "sampling_seconds": _Pauses.sampling_seconds,
                "samples": _Pauses.samples,
            }
        )
        (self.output / BLOCKS_NAME).write_text(text)


class _Pauses(threading.Event):
    """What MLflow's sampling waits for: only time that is measured passes, there.

    It sees how much processor time the sampling thread has taken in between.
    """

    sampling_seconds = 0.0
    samples = 0

    def __init__(self) -> None:
        super().__init__()
        self._worked_from = 0.0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for so much time, measured."""
        now = time.thread_time()
        if self._worked_from:
            _Pauses.sampling_seconds += now - self._worked_from
            _Pauses.samples += 1
        left = timeout or 0.0
        while left > 0 and not super().wait(_SECONDS_BETWEEN_LOOKS):
            left -= _SECONDS_BETWEEN_LOOKS if SwitchedClock.measuring else 0.0
        self._worked_from = time.thread_time()
        return self.is_set()


def main() -> None:
    """Run the stage that the rest of the command line names."""
    from mlflow.system_metrics import system_metrics_monitor

    framework, block_steps = sys.argv[1], int(sys.argv[2])
    sys.argv[1:3] = []
    SwitchedClock.block_steps = block_steps
    SwitchedClock.output = Path(sys.argv[sys.argv.index("--output") + 1])
    recorder.StepClock = SwitchedClock  # type: ignore[misc]  # before the loop's module takes it
    begin = system_metrics_monitor.SystemMetricsMonitor.__init__

    def begin_with_pauses(monitor: Any, *arguments: Any, **options: Any) -> None:
        begin(monitor, *arguments, **options)
        monitor._shutdown_event = _Pauses()

    system_metrics_monitor.SystemMetricsMonitor.__init__ = begin_with_pauses
    import_module(f"{framework}_pipeline.__main__").main()


if __name__ == "__main__":
    main()
