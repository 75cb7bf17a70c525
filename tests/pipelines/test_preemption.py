import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from pipelines.environments import PROJECT_ROOT
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption

Start = Callable[..., "subprocess.Popen[str]"]

PROLOGUE = f"""
import os, signal, subprocess, sys, time
sys.path.insert(0, {str(PROJECT_ROOT)!r})
from pipelines.preemption import LAUNCHER_VARIABLE, Preemption, end_with_launcher

def say(*words):
    print(*words, flush=True)

"""
# Says whether it is asked to end.
CHILD = """
preemption = Preemption()
preemption.watch()
end_with_launcher()
say("ready")
deadline = time.monotonic() + {seconds}
while not preemption.asked and time.monotonic() < deadline:
    time.sleep(0.01)
say("asked to end" if preemption.asked else "waited in vain")
"""
# Starts a program as a child of its own, and waits for it.
STARTS = """
subprocess.run([sys.executable, "-c", {program!r}])
"""
AS_ITS_LAUNCHER = "os.environ[LAUNCHER_VARIABLE] = str(os.getpid())\n"


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs a program in an interpreter of its own; all that it starts share its output."""
    started = []

    def run(program: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + program],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a failing test must not leave a child behind
        process.communicate()


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_a_process_that_watches_notes_that_it_was_asked_to_end_and_goes_on(start: Start) -> None:
    process = start(
        "preemption = Preemption()\n"
        "preemption.watch()\n"
        "say(preemption.asked)\n"
        "while not preemption.asked:\n"
        "    time.sleep(0.01)\n"
        "say(preemption.asked)\n"
    )

    before = line_of(process)
    process.send_signal(signal.SIGTERM)

    assert (before, line_of(process)) == ("False", "True")
    assert process.wait() == 0


def test_watching_again_takes_over_from_whoever_has_come_in_between(start: Start) -> None:
    process = start(
        "preemption = Preemption()\n"
        "preemption.watch()\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('not noted'))\n"
        "preemption.watch()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "say(preemption.asked)\n"
    )

    assert line_of(process) == "True"
    assert process.wait() == 0


def test_a_watched_block_tells_who_watches_around_it_and_leaves_the_handler_as_it_was() -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))

    try:
        with Preemption().watched() as around, Preemption().watched() as inside:
            os.kill(os.getpid(), signal.SIGTERM)
        noted, seen = (around.asked, inside.asked), list(asked)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert noted == (True, True)
    assert seen == []
    assert asked == [signal.SIGTERM]


def test_a_watched_block_that_fails_leaves_the_handler_as_it_was_too() -> None:
    before = signal.getsignal(signal.SIGTERM)

    with pytest.raises(ZeroDivisionError), Preemption().watched():
        raise ZeroDivisionError

    assert signal.getsignal(signal.SIGTERM) == before


def test_in_a_thread_nothing_is_noted_and_nothing_breaks() -> None:
    noted: list[bool] = []

    def watch() -> None:
        with Preemption().watched() as preemption:
            noted.append(preemption.asked)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()

    assert noted == [False]


def test_a_worker_is_asked_to_end_when_its_launcher_is_killed(start: Start) -> None:
    worker = PROLOGUE + CHILD.format(seconds=20)
    launcher = start(AS_ITS_LAUNCHER + STARTS.format(program=worker))
    assert line_of(launcher) == "ready"

    launcher.send_signal(signal.SIGKILL)

    assert line_of(launcher) == "asked to end"


def test_what_a_worker_starts_is_not_asked_to_end_when_the_worker_dies(start: Start) -> None:
    # It inherits the name of its grandparent, which is this process.
    child = PROLOGUE + CHILD.format(seconds=0.5)
    worker = start(STARTS.format(program=child), **{LAUNCHER_VARIABLE: str(os.getpid())})
    assert line_of(worker) == "ready"

    worker.send_signal(signal.SIGKILL)

    assert line_of(worker) == "waited in vain"


def test_a_process_that_no_launcher_started_is_left_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LAUNCHER_VARIABLE, raising=False)
    process = start("end_with_launcher()\nsay('here')")

    assert line_of(process) == "here"
    assert process.wait() == 0


def test_a_worker_whose_launcher_died_before_it_could_say_so_ends(start: Start) -> None:
    process = start(
        "parents = iter([int(os.environ[LAUNCHER_VARIABLE]), 1])\n"
        "os.getppid = lambda: next(parents)\n"
        "end_with_launcher()\n"
        "time.sleep(20)\n",
        **{LAUNCHER_VARIABLE: str(os.getpid())},
    )

    assert process.wait() == -signal.SIGTERM


@pytest.mark.timeout(60)
def test_a_wait_ends_when_the_signal_comes() -> None:
    with Preemption().watched() as preemption:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        preemption.wait(600)
        assert preemption.asked
        preemption.wait(600)  # nor does a later one begin


def test_a_wait_without_a_signal_lasts_as_long_as_asked_for() -> None:
    began = time.monotonic()

    Preemption().wait(0.05)

    assert time.monotonic() - began >= 0.05
