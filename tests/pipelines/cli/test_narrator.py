import io
import re
import sys

import pytest
from rich.console import Console

from pipelines.cli.narrator import Narrator
from pipelines.errors import WorkError


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rich reads of terminals from the environment."""
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)


def without_times(text: str) -> list[str]:
    return re.sub(r" *\d+\.\d s", " TIME", text).splitlines()


def test_a_task_has_a_line_when_it_begins_and_one_when_it_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrator = Narrator()

    with narrator.task("ingest") as task:
        task.update("reading", 1, 3)
        begun = capsys.readouterr()
        task.outcome = "1,440 + 357 examples"
    ended = capsys.readouterr()

    assert begun.err == "  ingest ...\n"
    assert without_times(ended.err) == ["✓ ingest TIME   1,440 + 357 examples"]
    assert begun.out == ended.out == ""


def test_plain_lines_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()

    with narrator.task("study") as task:
        for step in range(50):
            task.update(f"step {step}", step, 50)

    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert len(printed.splitlines()) == 2


@pytest.mark.parametrize("error", [WorkError("worker 1 ended"), KeyboardInterrupt()])
def test_a_failed_task_is_marked_and_its_error_goes_on(
    capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    narrator = Narrator()

    with pytest.raises(type(error)) as raised, narrator.task("pipeline tf") as task:
        task.outcome = "blessed"
        raise error

    assert raised.value is error
    assert without_times(capsys.readouterr().err) == [
        "  pipeline tf ...",
        "✗ pipeline tf TIME   failed",
    ]


def test_the_outcomes_of_tasks_stand_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()

    for title in ("study", "pipeline torch"):
        with narrator.task(title) as task:
            task.outcome = "OUTCOME"

    closing = [line for line in capsys.readouterr().err.splitlines() if line.startswith("✓")]
    assert len({line.index("OUTCOME") for line in closing}) == 1


def test_square_brackets_in_an_outcome_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()

    with narrator.task("train") as task:
        task.outcome = "study.workers [1, 2], [red]not red[/red]"

    assert "study.workers [1, 2], [red]not red[/red]" in capsys.readouterr().err


def test_a_long_outcome_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()
    path = "/".join(["a-folder-with-a-long-name"] * 12)

    with narrator.task("compare") as task:
        task.outcome = path
    narrator.say(f"Report: {path}")

    assert capsys.readouterr().err.count(path) == 2


def test_square_brackets_in_a_line_between_tasks_are_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Narrator().say("Report: out/[draft]/report.html")

    assert capsys.readouterr().err == "Report: out/[draft]/report.html\n"


def test_on_a_terminal_a_bar_moves_and_one_line_stays() -> None:
    narrator = Narrator()
    screen = io.StringIO()
    narrator.console = Console(file=screen, force_terminal=True, width=120, highlight=False)

    with narrator.task("study") as task:
        task.update("3/12 torch ddp x2 #1, step 40/300", 2.1, 12)
        task.outcome = "12 cells"

    printed = screen.getvalue()
    assert "3/12 torch ddp x2 #1, step 40/300" in printed
    assert "study ..." not in printed
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    last = plain.rstrip("\n").rsplit("\n", 1)[-1].rsplit("\r", 1)[-1]
    assert without_times(last) == ["✓ study TIME   12 cells"]


def test_everything_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator()

    narrator.say("Done.")

    assert narrator.console.file is sys.stderr
    assert capsys.readouterr() == ("", "Done.\n")


def test_work_that_was_done_with_a_bad_result_gets_no_tick(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Narrator().task("parity") as task:
        task.outcome, task.refuted = "they differ", True

    assert without_times(capsys.readouterr().err)[-1] == "✗ parity TIME   they differ"
