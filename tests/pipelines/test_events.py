import contextlib
import io
import math
import os
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import events
from pipelines.environments import PROJECT_ROOT

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


def test_processes_that_share_an_output_do_not_write_into_each_others_lines() -> None:
    """Without a buffer, as in the images, every write goes out as it is."""
    program = "from pipelines import events\nfor _ in range(2000): events.emit('step', step=1)"
    command = [sys.executable, "-u", "-c", program]
    read, write = os.pipe()
    both = [subprocess.Popen(command, stdout=write, cwd=PROJECT_ROOT) for _ in range(2)]
    os.close(write)
    with os.fdopen(read) as output:
        lines = output.read().splitlines()

    assert [process.wait() for process in both] == [0, 0]
    assert len(lines) == 4000
    assert {line: events.parse(line) for line in lines} == {
        '::tandem {"event": "step", "step": 1}': {"event": "step", "step": 1}
    }


def test_an_emitted_event_is_one_line_that_parses(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("step", step=3, steps=10, note="two\nlines", where=["a", {"b": None}])

    printed = capsys.readouterr().out
    assert printed.endswith("\n")
    assert len(printed.splitlines()) == 1
    assert events.parse(printed) == {
        "event": "step",
        "step": 3,
        "steps": 10,
        "note": "two\nlines",
        "where": ["a", {"b": None}],
    }


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text().filter(lambda key: key not in ("event", "self")), PLAIN))
def test_whatever_is_emitted_comes_back(details: dict[str, object]) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        events.emit("said", **details)

    assert events.parse(printed.getvalue()) == {"event": "said", **details}


def test_a_runner_in_between_may_indent(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("phase", name="build_seconds")
    printed = capsys.readouterr().out

    assert events.parse(f"\t   {printed}") == {"event": "phase", "name": "build_seconds"}


def test_a_number_that_is_not_finite_survives(capsys: pytest.CaptureFixture[str]) -> None:
    events.emit("loss", value=math.nan)

    parsed = events.parse(capsys.readouterr().out)
    assert parsed is not None
    assert math.isnan(parsed["value"])


@settings(deadline=None)
@given(st.text())
@example("")
@example("epoch 1 of 3")
@example('{"event": "step"}')
@example("see ::tandem {}")
@example("::tandem [1, 2]")
@example("::tandem 3")
def test_any_other_line_is_no_event(line: str) -> None:
    assert events.parse(line) is None


@pytest.mark.parametrize(
    "line", ["::tandem ", "::tandem of two bicycles", '::tandem {"event": "step", "st']
)
def test_a_marked_line_that_was_cut_off_is_no_event(line: str) -> None:
    assert events.parse(line) is None


def test_a_worker_whose_launcher_is_gone_is_not_ended_by_what_it_would_tell_it() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(PROJECT_ROOT)!r})\n"
        "from pipelines import events\n"
        "sys.stdin.read()\n"
        "for step in range(3):\n"
        "    events.emit('step', step=step)\n"
        "print('saved', file=sys.stderr)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None

    worker.stdout.close()
    worker.stdin.close()

    assert worker.stderr.readline() == "saved\n"
    worker.stderr.close()
    worker.wait()
