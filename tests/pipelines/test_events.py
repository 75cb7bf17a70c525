import contextlib
import io
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import events

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


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
