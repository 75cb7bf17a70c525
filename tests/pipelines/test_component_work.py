import os
import subprocess
import sys
import time
from typing import Any

import pytest

from pipelines import events
from pipelines.component_work import ComponentTimes, announce, component_work, counted_processes


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [event for line in capsys.readouterr().out.splitlines() if (event := events.parse(line))]


def taken(*told: dict[str, Any]) -> ComponentTimes:
    times = ComponentTimes()
    for event in told:
        times.take(event)
    return times


def test_what_a_component_tells_adds_up_to_its_start_up_and_its_work(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = time.perf_counter()
    announce("train", 6)
    with component_work("train"):
        time.sleep(0.01)
    between = time.perf_counter() - before

    announced, worked = told(capsys)

    assert (announced["event"], announced["name"], announced["of"]) == ("component", "train", 6)
    times = taken(announced, worked)
    assert times.work["train"] >= 0.01
    assert times.startup["train"] >= 0
    assert times.work["train"] + times.startup["train"] <= between


def test_a_component_that_fails_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), component_work("validate"):
        raise SystemExit("error: dataset has anomalies")

    assert told(capsys) == []


def test_start_up_is_from_the_announcement_to_the_beginning_of_the_work() -> None:
    times = taken(
        {"event": "component", "name": "train", "of": 2, "at": 10.0},
        {"event": "step", "step": 3, "steps": 12},
        {"event": "work", "name": "train", "began": 12.5, "seconds": 4.0},
        {"event": "component", "name": "push", "of": 2, "at": 17.0},
    )

    assert times.startup == {"train": 2.5}
    assert times.work == {"train": 4.0}


def test_work_that_nobody_announced_has_no_start_up() -> None:
    times = taken({"event": "work", "name": "train", "began": 12.5, "seconds": 4.0})

    assert (times.startup, times.work) == ({}, {"train": 4.0})


def test_the_processes_that_this_one_starts_are_counted_and_no_others() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    with counted_processes() as processes:
        subprocess.run([sys.executable, "-c", child], check=True)
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    subprocess.run([sys.executable, "-c", ""], check=True)

    assert processes.count == 2
