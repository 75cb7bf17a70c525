"""Starting worker processes on this machine, and ending them all together.

Every worker gets the same treatment whatever its framework: its rank in both of the field's
conventions, its number of compute threads, and cores of its own where the machine has enough.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from pipelines import events
from pipelines.cluster import Layout, Task, tasks_of
from pipelines.cluster_config import ClusterConfig
from pipelines.environments import find_python
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.hardware import available_cores
from pipelines.hosts import emulated_hosts
from pipelines.network_config import NetworkConfig
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption
from pipelines.strategies import Framework
from pipelines.worker import RANK_VARIABLES

__all__ = ["OnEvent", "OnLine", "OnStart", "cause", "launch", "process_variables"]

_LAST_LINES = 30
_SECONDS_TO_END = 5.0
_POLL_SECONDS = 0.05

_EXCEPTION = re.compile(r"(\[rank\d+\]: )?([\w.]*(Error|Exception)\b.*|error): ")
"""How Python ends a traceback, behind PyTorch's mark, and a stage its one line; TensorFlow adds
lines of its own."""

_ALLOCATOR = {
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # Any of these settings fixes the size from which blocks are mapped, and unmapped, one by one.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}

_STAGES_OF_JOBS = ("train", "step", "transform")
"""Those that run in a framework's own image, on a cluster."""

_ONE_HOST = NetworkConfig()
_ONE_PROCESS = Layout()

OnEvent = Callable[[int, dict[str, Any]], None]
"""Called with a worker's rank and what it said of its progress."""
OnLine = Callable[[str, str], None]
"""Called with a task's name, such as ``rank0``, and a line that it printed."""
OnStart = Callable[[int, Collection[str]], None]
"""Called with a process's id, and the names of the variables that were set for it here."""


@dataclass
class _Process:
    task: Task
    process: "subprocess.Popen[str]"
    log: Path
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    reader: threading.Thread | None = None
    error: BaseException | None = None


def launch(
    framework: Framework,
    arguments: Sequence[str],
    *,
    logs: Path,
    layout: Layout = _ONE_PROCESS,
    network: NetworkConfig = _ONE_HOST,
    threads_per_worker: int = 1,
    environment: dict[str, str] | None = None,
    on_event: OnEvent = lambda rank, event: None,
    on_line: OnLine = lambda name, line: None,
    on_start: OnStart = lambda pid, variables: None,
    module: str | None = None,
    preemption: Preemption | None = None,
) -> float:
    """Run ``python -m <framework>_pipeline <arguments>`` as the processes of a layout.

    With parameter servers there is a chief too, which tells all the others what to do; a process
    of several replicas has the threads of as many workers. ``network`` may share the processes
    out among emulated hosts. ``module`` is run in that package's place: a test's, which breaks
    something first. Output goes to ``logs/<task>.log``, such as ``rank0.log``; what compilers keep
    on disk is for these processes alone, and gone afterwards. If one process fails, the others are
    ended. The SIGTERM that ``preemption`` notes is passed on to those that train, which may take
    their time to save; they also get it if this process dies.

    In a step of a pipeline on a cluster the processes are the pods of a training job instead.

    Returns the seconds from starting the first process to the end of the last.

    Raises:
        WorkError: if a worker failed, with its last lines.
        PreemptedError: if SIGTERM came before the workers were there to take it.
        InputError: if a worker refused its input, with its message, or the network cannot be had.
    """
    cluster = ClusterConfig.of_this_step()
    if cluster is not None and arguments[0] in _STAGES_OF_JOBS:
        from pipelines.submit.job_launcher import launch_job

        logs.mkdir(parents=True, exist_ok=True)
        return launch_job(
            cluster,
            framework,
            arguments,
            logs=logs,
            layout=layout,
            network=network,
            threads_per_worker=threads_per_worker,
            environment=environment or {},
            on_event=on_event,
            on_line=on_line,
            on_start=on_start,
            preemption=preemption or Preemption(),
        )
    python = find_python(framework)
    logs.mkdir(parents=True, exist_ok=True)
    program = module or f"{framework}_pipeline"
    command = [str(python), "-m", program, *arguments, *layout.arguments]
    cores, threads = available_cores(), threads_per_worker * layout.replicas
    alone = layout.workers * threads <= len(cores)
    processes: list[_Process] = []
    preemption = preemption or Preemption()
    with (
        _compilers_caches() as caches,
        emulated_hosts(network) as hosts,
        preemption.passed_on(lambda: _ask_to_end(processes)),
    ):
        started = time.perf_counter()
        try:
            for task in tasks_of(framework, layout, hosts):
                added = {
                    **process_variables(threads),
                    **caches,
                    **task.variables,
                    LAUNCHER_VARIABLE: str(os.getpid()),
                    **(environment or {}),
                }
                kept = {name: os.environ[name] for name in os.environ if name not in RANK_VARIABLES}
                variables = {**kept, **added}
                if preemption.asked:
                    raise PreemptedError("asked to end before all workers were started")
                processes.append(_start(command, task, variables, logs, on_event, on_line))
                on_start(processes[-1].process.pid, added)
                if alone and task.place is not None:
                    first = task.place * threads
                    os.sched_setaffinity(processes[-1].process.pid, cores[first : first + threads])
            _wait(processes, preemption)
        finally:
            _end(processes)
        return time.perf_counter() - started


@contextmanager
def _compilers_caches() -> Iterator[dict[str, str]]:
    """Variables that name empty folders, which are gone after the block.

    PyTorch's compilers find there what they have compiled before, in any process of the machine;
    XLA compiles anew in each. Whatever the user has set: no run's time may depend on earlier runs.
    """
    # What was killed while it wrote may leave something for the next cleaning of /tmp.
    with TemporaryDirectory(prefix="tandem-compiled-", ignore_cleanup_errors=True) as folder:
        yield {
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor",
            "TRITON_CACHE_DIR": f"{folder}/triton",
        }


def _start(
    command: list[str],
    task: Task,
    variables: dict[str, str],
    logs: Path,
    on_event: OnEvent,
    on_line: OnLine,
) -> _Process:
    process = subprocess.Popen(
        [*task.host.prefix, *command],
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches the launcher alone, which ends the workers
    )
    started = _Process(task, process, logs / f"{task.name}.log")
    assert process.stdout is not None
    started.reader = threading.Thread(
        target=_read, args=(started, process.stdout, on_event, on_line), daemon=True
    )
    started.reader.start()
    return started


def _read(worker: _Process, output: IO[str], on_event: OnEvent, on_line: OnLine) -> None:
    # Unbuffered, since what a full disk has refused would be tried again at every line.
    with worker.log.open("wb", buffering=0) as log:
        for line in output:
            event = events.parse(line)
            if event is None:
                with suppress(OSError):  # who stopped reading would stop the worker too
                    log.write(line.encode(errors="replace"))
                worker.last_lines.append(line.rstrip())
            try:
                if worker.error is not None:
                    continue
                if event is not None:
                    on_event(worker.task.rank, event)
                else:
                    on_line(worker.task.name, line.rstrip())
            except BaseException as error:  # raised again by the thread that waits
                worker.error = error


def _ask_to_end(processes: list[_Process]) -> None:
    """Those that train; servers are needed to the end, which comes to them from the launcher."""
    for worker in processes:
        if not worker.task.serves and worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)


def _wait(processes: list[_Process], preemption: Preemption) -> None:
    running = list(processes)
    while any(not worker.task.serves for worker in running):
        for worker in running:
            if worker.error is not None:
                raise worker.error
            code = worker.process.poll()
            if code is None:
                continue
            running.remove(worker)
            if code == -signal.SIGTERM and preemption.asked:
                raise PreemptedError("asked to end before its workers had begun")
            if code != 0:
                _raise_failure(worker, code)
            break
        else:
            time.sleep(_POLL_SECONDS)


def _raise_failure(worker: _Process, code: int) -> None:
    if worker.reader is not None:
        worker.reader.join(_SECONDS_TO_END)
    if code == InputError.exit_code and worker.last_lines:
        refusals = [line for line in worker.last_lines if line.startswith("error: ")]
        raise InputError((refusals or worker.last_lines)[-1].removeprefix("error: "))
    if code < 0:  # by somebody else, so what it said last has nothing to do with it
        how, said = signal.Signals(-code).name, ""
    else:
        how, said = f"exit code {code}", f": {cause(worker.last_lines)}"
    raise WorkError(f"{_title(worker.task)} ended with {how}{said} (log: {worker.log})")


def cause(last_lines: Iterable[str]) -> str:
    """The last line that names an exception, else the last that says anything."""
    lines = [line.strip() for line in last_lines if line.strip()]
    named = [line for line in lines if _EXCEPTION.match(line)]
    return (named or lines or ["no output"])[-1]


def _title(task: Task) -> str:
    return f"worker {task.rank}" if task.name == f"rank{task.rank}" else task.name


def _end(processes: list[_Process]) -> None:
    """End what still runs, at once; each worker leads a group of its own."""
    alive = [worker for worker in processes if _signal_group(worker, signal.SIGKILL)]
    deadline = time.monotonic() + _SECONDS_TO_END
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        alive = [worker for worker in alive if _signal_group(worker, 0)]
    for worker in processes:
        if worker.reader is not None:
            worker.reader.join(_SECONDS_TO_END)


def _signal_group(worker: _Process, signal_number: int) -> bool:
    """Signal a worker and all that it started; whether anything of it was still there."""
    worker.process.poll()  # so that an ended leader does not keep its group alive
    try:
        os.killpg(worker.process.pid, signal_number)
    except ProcessLookupError:
        return False
    return True


def process_variables(threads: int) -> dict[str, str]:
    """The number of compute threads for every library, and an allocator that keeps its memory.

    Without the latter, glibc gives large temporaries back to the kernel as they are freed, and
    faults them in again at the next step: it would be glibc's policy that is compared
    (docs/methodology.md has the figures).
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        **{name: os.environ.get(name, value) for name, value in _ALLOCATOR.items()},
    }
