"""Faults, done from outside to a run that ``tandem train`` has started, and what became of it.

Each is something that happens on a cluster: a machine is taken back, a process is killed for
memory, a switch loses a port, a disk runs full. The run is never told beforehand.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.checkpoints import CHECKPOINTS_FOLDER, step_of
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import WorkError
from pipelines.hosts import Host
from pipelines.run_folder import RESULT_NAME
from pipelines.strategies import Framework

__all__ = ["FAULTS", "NEEDS_ROOT", "Outcome", "Runs"]

_STEPS, _EVERY_STEPS = 160, 20
_SETTINGS = (
    f"training.steps={_STEPS}",
    "training.warmup_steps=10",
    f"checkpoint.every_steps={_EVERY_STEPS}",
    "torch.timeout_seconds=10",
)
_UNTIL_THE_FIRST_STEP = (
    *("start_seconds", "import_seconds", "tracking_seconds", "rendezvous_seconds"),
    *("build_seconds", "restore_seconds", "first_step_seconds"),
)
_LIMIT_SECONDS = 300
_SECONDS_AFTER_A_CHECKPOINT = 0.25
"""About half way to the next, so that there is something to lose."""
_DISK = "8m"


@dataclass(frozen=True)
class Outcome:
    """What a fault did to a run that began on two workers."""

    exit_codes: list[int]
    """Of the command that began it, and of the one that went on with it."""
    said: str
    """What they told their user."""
    steps: int
    """Steps of the loss curve in the end."""
    lost_steps: int
    """Steps that had to be done again, as far as rank 0 had told of them (five times a second)."""
    recovery_seconds: float | None
    """From the fault, or from the command to go on, to the first new step; None: it went on."""
    largest_difference: float
    """From the unbroken run's losses. A step's loss is that of its examples, so where it is 0 at
    every step no example was skipped, and none seen twice."""
    final_loss: float
    unbroken_final_loss: float
    metrics: dict[str, float]
    """That the last command measured."""


class Run:
    """A training run of ``tandem train``, in a folder of its own."""

    def __init__(self, framework: Framework, output: Path, data: Path) -> None:
        """``output`` is the configuration's; ``data`` has the dataset, or will."""
        self.framework = framework
        self.output = output
        self.codes: list[int] = []
        self._data = data
        self._said, self._answer = output / "said.txt", output / "answer.json"

    @property
    def folder(self) -> Path:
        """What ``--resume`` takes."""
        (folder,) = self.output.glob("runs/*/*")
        return folder

    @property
    def checkpoints(self) -> list[Path]:
        """Its checkpoints, the newest last."""
        return sorted(self.output.glob(f"runs/*/*/{CHECKPOINTS_FOLDER}/step-*"))

    @property
    def workers(self) -> list[psutil.Process]:
        """Its worker processes by rank."""
        children = psutil.Process(self.process.pid).children()
        return sorted(children, key=lambda child: child.create_time())

    @property
    def said(self) -> str:
        """What its commands have told until now."""
        return self._said.read_text()

    @property
    def metrics(self) -> dict[str, float]:
        """What its last command has measured."""
        found: dict[str, float] = json.loads(self._answer.read_text())
        return found

    @property
    def losses(self) -> list[float]:
        """Of all its steps, once it has ended."""
        file = self.folder / RESULT_NAME
        if not file.exists():
            raise WorkError(f"no result: {self.said}")
        found: list[float] = json.loads(file.read_text())["train_loss"]
        return found

    def begin(self, *arguments: str) -> "Run":
        """Start it on two workers."""
        self.output.mkdir(parents=True, exist_ok=True)
        quickstart = PROJECT_ROOT / "configs" / "quickstart.yaml"
        settings = (word for setting in _SETTINGS for word in ("--set", setting))
        return self._call("--config", str(quickstart), "--workers", "2", *settings, *arguments)

    def resume(self, *arguments: str) -> "Run":
        """Go on with it."""
        return self._call("--resume", str(self.folder), *arguments)

    def end(self) -> "Run":
        """Wait for its command."""
        self.codes.append(self.process.wait(_LIMIT_SECONDS))
        return self

    def copy(self, output: Path) -> "Run":
        """The same run in another folder, once its command has ended."""
        shutil.copytree(self.output, output)
        copied = Run(self.framework, output, self._data)
        copied.codes = [*self.codes]
        return copied

    def wait_until(self, what: str, happened: Callable[[], object]) -> None:
        """Wait for something to happen while its command runs.

        Raises:
            WorkError: if the command ends before, or time is up.
        """
        deadline = time.monotonic() + _LIMIT_SECONDS
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise WorkError(f"waited in vain for {what}: {self.said}")
            time.sleep(0.01)

    def wait_for_checkpoints(self, count: int) -> "Run":
        """Wait until there are so many."""
        self.wait_until("a checkpoint", lambda: len(self.checkpoints) >= count)
        return self

    def _call(self, *arguments: str) -> "Run":
        where = (f"output={self.output}", f"data.output={self._data}")
        places = (word for place in where for word in ("--set", place))
        tandem = Path(sys.executable).with_name("tandem")
        with self._said.open("a") as said, self._answer.open("w") as answer:
            self.process = subprocess.Popen(
                [tandem, "train", self.framework, "--json", *arguments, *places],
                cwd=PROJECT_ROOT,
                stdout=answer,
                stderr=said,
            )
        return self


class Runs:
    """The runs of one framework, all of the same work."""

    def __init__(self, framework: Framework, folder: Path) -> None:
        """``folder`` is for all that they write."""
        self._framework = framework
        self._folder = folder
        self._unbroken: list[float] = []
        self._preempted: Run | None = None

    def begin(self, name: str, *arguments: str) -> Run:
        """Start one in a folder of its own."""
        return self._new(name).begin(*arguments)

    def preempted(self, name: str) -> Run:
        """A copy of one that was asked to end after its first checkpoint, and has saved."""
        if self._preempted is None:
            run = self.begin("preempted").wait_for_checkpoints(1)
            run.process.terminate()
            self._preempted = run.end()
        return self._preempted.copy(self._folder / name)

    @contextmanager
    def small_disk(self, name: str) -> Iterator[Path]:
        """What a run of that name keeps of itself lies on a disk of its own, which is this."""
        disk = self._folder / name / "runs"
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", disk], check=True)
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)

    def outcome(
        self, run: Run, *, lost_steps: float = 0, recovery_seconds: float | None = None
    ) -> Outcome:
        """What has become of a run in the end."""
        if not self._unbroken:
            self._unbroken = self.begin("unbroken").end().losses
        losses: list[float] = run.losses
        pairs = zip(losses, self._unbroken, strict=True)
        return Outcome(
            exit_codes=run.codes,
            said=run.said,
            steps=len(losses),
            lost_steps=round(lost_steps),
            recovery_seconds=recovery_seconds,
            largest_difference=max(abs(one - other) for one, other in pairs),
            final_loss=losses[-1],
            unbroken_final_loss=self._unbroken[-1],
            metrics=run.metrics,
        )

    def _new(self, name: str) -> Run:
        return Run(self._framework, self._folder / name, self._folder / "data")


def _sigterm(runs: Runs) -> Outcome:
    return _resumed(runs, runs.preempted("sigterm"))


def _on_one_worker(runs: Runs) -> Outcome:
    return _resumed(runs, runs.preempted("on-1"), "--workers", "1")


def _on_four_workers(runs: Runs) -> Outcome:
    return _resumed(runs, runs.preempted("on-4"), "--workers", "4")


def _truncated_checkpoint(runs: Runs) -> Outcome:
    run = runs.preempted("truncated")
    before, newest = run.checkpoints[-2:]
    largest = max((file for file in newest.rglob("*")), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as opened:
        opened.truncate(largest.stat().st_size // 2)
    outcome = _resumed(runs, run, lost_steps=step_of(newest) - step_of(before))
    if f"going on from step {step_of(before)}" not in outcome.said:
        raise WorkError(f"not the checkpoint before the damaged one was used: {outcome.said}")
    return outcome


def _killed_launcher(runs: Runs) -> Outcome:
    run = runs.begin("killed-launcher").wait_for_checkpoints(2)
    workers = run.workers
    run.process.kill()
    run.end()
    _, alive = psutil.wait_procs(workers, _LIMIT_SECONDS)
    if alive:
        raise WorkError(f"workers outlive their launcher: {alive}")
    if step_of(run.checkpoints[-1]) <= 2 * _EVERY_STEPS:
        raise WorkError("the workers have not saved when their launcher died")
    return _resumed(runs, run)


def _killed_chief(runs: Runs) -> Outcome:
    return _killed_worker(runs, 0)


def _killed_other(runs: Runs) -> Outcome:
    return _killed_worker(runs, 1)


def _killed_worker(runs: Runs, rank: int) -> Outcome:
    def kill(run: Run) -> None:
        run.workers[rank].kill()

    return _restarted(runs, f"killed-{rank}", kill)


def _cut_link(runs: Runs) -> Outcome:
    def cut(run: Run) -> None:
        Host(link=f"t{run.process.pid}h1").cut()

    return _restarted(runs, "cut-link", cut, "--hosts", "2")


def _full_disk(runs: Runs) -> Outcome:
    with runs.small_disk("full-disk") as folder:
        run = runs.begin("full-disk").wait_for_checkpoints(1)
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as filling:
            try:
                while True:
                    filling.write(bytes(4096))
            except OSError:  # full
                pass
        run.wait_until("a failed save", lambda: "could not be saved" in run.said)
        filler.unlink()
        outcome = runs.outcome(run.end())
        if step_of(run.checkpoints[-1]) != _STEPS - _EVERY_STEPS:
            raise WorkError("no checkpoint was saved once there was room again")
    return outcome


FAULTS: dict[str, Callable[[Runs], Outcome]] = {
    "SIGTERM": _sigterm,
    "kill -9 of the chief": _killed_chief,
    "kill -9 of another worker": _killed_other,
    "kill -9 of the launcher": _killed_launcher,
    "cut link between two hosts": _cut_link,
    "truncated newest checkpoint": _truncated_checkpoint,
    "full disk while saving": _full_disk,
    "SIGTERM, then on 1 worker": _on_one_worker,
    "SIGTERM, then on 4 workers": _on_four_workers,
}
"""By name."""
NEEDS_ROOT = {"cut link between two hosts", "full disk while saving"}


def _resumed(runs: Runs, run: Run, *arguments: str, lost_steps: float = 0) -> Outcome:
    metrics = run.resume(*arguments).end().metrics
    seconds = sum(metrics[name] for name in _UNTIL_THE_FIRST_STEP)
    return runs.outcome(run, lost_steps=lost_steps, recovery_seconds=seconds)


def _restarted(runs: Runs, name: str, inflict: Callable[[Run], None], *arguments: str) -> Outcome:
    """What comes of a fault to a run that starts its workers again by itself."""
    run = runs.begin(name, "--max-restarts", "1", *arguments).wait_for_checkpoints(2)
    time.sleep(_SECONDS_AFTER_A_CHECKPOINT)
    inflict(run)
    happened = time.monotonic()
    run.wait_until("a restart", lambda: "starting all workers again" in run.said)
    noticed = time.monotonic() - happened
    metrics = run.end().metrics
    return runs.outcome(
        run,
        lost_steps=metrics["lost_steps"],
        recovery_seconds=noticed + metrics["recovery_seconds"],
    )
