"""Paired measurements: A B A B, each run in a fresh process, in one go on one machine."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks.contestant import Measures
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, WorkError

__all__ = ["Contestant", "Runs", "best", "find_bench_python", "run", "run_rounds"]

_LIMIT_SECONDS = 600
_SAMPLE_SECONDS = 0.05
_KEPT_LINES = 15


@dataclass(frozen=True)
class Contestant:
    """What is measured: an action of a module, run by an environment's Python."""

    name: str
    module: str
    action: str
    options: Mapping[str, Any]
    python: Path = Path(sys.executable)
    prepare: Callable[[], object] = field(default=lambda: None)
    """Called before each run, outside the measured time: removes what the last one left."""
    repeats: int | None = None
    """Rounds it takes part in, where that is fewer than the others."""
    samples_memory: bool = False
    """Whether to sample the memory of its whole process tree; this slows it a little."""


@dataclass
class Runs:
    """What one contestant measured, round by round."""

    measures: list[Measures]
    versions: dict[str, str]

    def values(self, name: str = "rows_per_second") -> list[float]:
        """One measure in every round."""
        return [each[name] for each in self.measures]

    def median(self, name: str = "rows_per_second") -> float:
        """One measure's median over the rounds."""
        return median(self.values(name))


def run_rounds(
    contestants: Sequence[Contestant],
    repeats: int,
    on_run: Callable[[str], None] = lambda text: None,
) -> dict[str, Runs]:
    """Run all contestants one after the other, and that ``repeats`` times.

    Raises:
        WorkError: if one of them fails, with the end of what it printed.
    """
    results: dict[str, Runs] = {}
    for number in range(repeats):
        for contestant in contestants:
            if number >= (contestant.repeats or repeats):
                continue
            on_run(f"round {number + 1} of {repeats}: {contestant.name}")
            found = run(contestant)
            runs = results.setdefault(contestant.name, Runs([], found["versions"]))
            runs.measures.append(found["measures"])
    return results


def run(contestant: Contestant) -> dict[str, Any]:
    """Run a contestant once: its ``measures`` and the ``versions`` of what it is made of.

    Raises:
        WorkError: if it fails, with the end of what it printed.
    """
    contestant.prepare()
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log"
        options = json.dumps(dict(contestant.options))
        command: list[str | Path] = [
            contestant.python,
            "-m",
            contestant.module,
            contestant.action,
            options,
            answer,
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PROJECT_ROOT,
                env=_quiet(),
                start_new_session=True,
            )
            with _killed_if_late(process):
                peak = _sampled_peak(process) if contestant.samples_memory else None
                code = process.wait()
        if code:
            lines = log.read_text(errors="replace").splitlines()[-_KEPT_LINES:]
            raise WorkError(f"{contestant.name}: ended with {code}:\n" + "\n".join(lines))
        found: dict[str, Any] = json.loads(answer.read_bytes())
    measures = found["measures"]
    if peak is not None:
        measures["peak_tree_bytes"] = peak
    if "seconds" in measures:
        measures["rows_per_second"] = measures["rows"] / measures["seconds"]
    found["versions"]["python"] = found["python"]
    return found


def find_bench_python() -> Path:
    """The interpreter that can import the readers that ours is compared with.

    Raises:
        InputError: if there is none, naming the make target that makes one.
    """
    made = PROJECT_ROOT / ".venv-bench" / "bin" / "python"
    if not made.exists():
        raise InputError(
            f"the benchmarks' environment {made.parent.parent} is missing; "
            "make it with `make env-bench`"
        )
    return made


def best(results: Mapping[str, Runs], names: Sequence[str]) -> str:
    """Of the contestants named, the one with the greatest median of rows per second."""
    return max(names, key=lambda name: results[name].median())


def _quiet() -> dict[str, str]:
    hushed = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    kept = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | hushed


@contextmanager
def _killed_if_late(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Kill the process and its descendants if it takes too long, or this one is interrupted."""

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(_LIMIT_SECONDS, kill)
    timer.start()
    try:
        yield
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()


def _sampled_peak(process: "subprocess.Popen[bytes]") -> float:
    """Greatest memory of a process and its descendants, in bytes; shared pages count once."""
    peak = 0.0
    while process.poll() is None:
        total = 0.0
        try:
            root = psutil.Process(process.pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for each in tree:
            try:
                total += each.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        peak = max(peak, total)
        time.sleep(_SAMPLE_SECONDS)
    return peak
