"""What getting over a fault costs: a training run, one of whose workers is killed on purpose.

The fault table (``benchmarks/faults.py``) has more faults, done from outside; this is its row
``kill -9 of another worker``, done in a study, so that the report has it of the study's machine.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipelines import tracking
from pipelines.cell import Cell, cell_config
from pipelines.checkpoints import CHECKPOINTS_FOLDER
from pipelines.config import Config
from pipelines.errors import InputError, WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.run_folder import fresh_folder
from pipelines.runs import FAULT_TAG
from pipelines.strategies import Framework
from pipelines.training_run import Listener, begin_run
from pipelines.worker import Worker

__all__ = ["WITHOUT_RECOVERY", "measure_recovery", "recovery_cell"]

WITHOUT_RECOVERY = frozenset({"tpu"})
"""Strategies of whose workers none is killed: it might leave the device taken."""

_MOST_STEPS, _CHECKPOINTS = 120, 6
_POLL_SECONDS = 0.01


def recovery_cell(config: Config, framework: Framework) -> Cell:
    """What is trained: the study's first strategy of the framework, on the most workers."""
    strategy = config.strategies(framework)[0]
    return Cell(framework, strategy, max(config.study.workers), config.study.scaling[0])


def measure_recovery(
    config: Config,
    dataset: Dataset,
    framework: Framework,
    study_id: str,
    folder: Path,
    listener: Listener,
) -> tuple[str, dict[str, float]]:
    """Kill a worker half way from the second checkpoint to the third, and let the run go on.

    It is worker 1, or the only process. Returns the id of the run, of kind ``recovery``, and its
    metrics, among them ``notice_seconds``, ``recovery_seconds`` and ``lost_steps``. It writes to a
    folder of its own in ``folder``.

    Raises:
        InputError: if the strategy is ``tpu``.
        PreemptedError: if it was asked to end.
        WorkError: if no worker could be killed in time, or the run did not go on.
    """
    cell = recovery_cell(config, framework)
    if cell.strategy in WITHOUT_RECOVERY:
        raise InputError(
            "tf.strategy: no worker is killed under tpu, since that might leave the device taken; "
            "use another strategy, or study.recovery=false"
        )
    parent, _ = fresh_folder(folder, f"{cell.kind_slug}-recovery")
    fault = _Fault(parent / cell.slug)

    def on_progress(cell: Cell, step: int, steps: int) -> None:
        if step == 0:
            fault.attempt_begins()
        listener.on_progress(cell, step, steps)

    with fault.awaited():
        run_id, metrics = begin_run(
            _shortened(cell_config(config, cell)),
            dataset,
            cell,
            "recovery",
            study_id,
            parent,
            replace(listener, on_progress=on_progress),
            max_restarts=1,
        )
    if fault.rank is None or fault.notice_seconds is None:
        raise WorkError(f"no worker of {cell.title} could be killed before it had ended")
    found = {"notice_seconds": fault.notice_seconds}
    tracking.log_metrics(config, run_id, found, {FAULT_TAG: f"kill -9 of worker {fault.rank}"})
    return run_id, metrics | found


def _shortened(config: Config) -> Config:
    """As many steps as give some checkpoints, by steps alone, of which two stand at once."""
    training = config.training
    steps = min(training.steps, _MOST_STEPS)
    fewer = {"steps": steps, "warmup_steps": min(training.warmup_steps, steps - 1)}
    saved = {
        "every_steps": max(steps // _CHECKPOINTS, 1),
        "every_minutes": None,
        "keep": max(config.checkpoint.keep, 2),
    }
    return config.model_copy(
        update={
            "training": training.model_copy(update=fewer),
            "checkpoint": config.checkpoint.model_copy(update=saved),
        }
    )


@dataclass
class _Fault:
    """What is done to the run of a folder, once."""

    folder: Path
    rank: int | None = None
    """The worker that was killed."""
    notice_seconds: float | None = None
    _killed_at: float = 0.0

    def attempt_begins(self) -> None:
        """All workers are about to be started: at first, or again."""
        if self.rank is not None and self.notice_seconds is None:
            self.notice_seconds = time.perf_counter() - self._killed_at

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Do it within the block, by a thread of its own, when it is time to."""
        over = threading.Event()
        thread = threading.Thread(target=self._await, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _await(self, over: threading.Event) -> None:
        seen: list[float] = []
        while len(seen) < 2:
            if over.wait(_POLL_SECONDS):
                return
            saved = len([*(self.folder / CHECKPOINTS_FOLDER).glob("step-*")])
            seen += [time.perf_counter()] * (saved - len(seen))
        if not over.wait((seen[1] - seen[0]) / 2):
            self._kill()

    def _kill(self) -> None:
        workers = self._workers()
        rank = min(1, max(workers, default=0))
        if rank in workers:
            self._killed_at, self.rank = time.perf_counter(), rank
            with suppress(psutil.NoSuchProcess):  # it has ended by itself, which is told in the end
                workers[rank].kill()

    def _workers(self) -> dict[int, psutil.Process]:
        """The run's processes by rank."""
        found = {}
        for child in psutil.Process().children():
            try:
                if str(self.folder) in child.cmdline():
                    found[Worker.from_environment(child.environ()).rank] = child
            except psutil.NoSuchProcess:
                continue
        return found
