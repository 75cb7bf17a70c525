import pytest

from pipelines.errors import (
    ComparisonRefusedError,
    InputError,
    PreemptedError,
    TandemError,
    WorkError,
)
from pipelines.stage import DEBUG_VARIABLE, run_stage, step_body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkError("worker 1 ended"), 1),
        (InputError("small.yaml: name: required"), 2),
        (ComparisonRefusedError("they differ", {"seed": ["0", "1"]}), 3),
        (TandemError("something expected"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_is_one_line_and_an_exit_code(
    error: TandemError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def program() -> None:
        raise error

    with pytest.raises(SystemExit) as raised:
        run_stage(program)

    assert raised.value.code == code
    printed = capsys.readouterr()
    assert printed.err == f"error: {error}\n"
    assert printed.out == ""


def test_with_the_debug_variable_an_expected_error_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DEBUG_VARIABLE, "1")

    def program() -> None:
        raise InputError("small.yaml: name: required")

    with pytest.raises(SystemExit) as ended:
        run_stage(program)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "Traceback (most recent call last):"
    assert said[-1] == "error: small.yaml: name: required"


def test_an_unexpected_error_is_never_hidden() -> None:
    def program() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_stage(program)


def test_a_program_that_ends_well_ends_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    called = []

    run_stage(lambda: called.append("program"))

    assert called == ["program"]
    assert capsys.readouterr() == ("", "")


def test_a_programs_own_exit_code_is_kept() -> None:
    def program() -> None:
        raise SystemExit(7)

    with pytest.raises(SystemExit) as raised:
        run_stage(program)
    assert raised.value.code == 7


def test_a_step_ends_as_a_program_does_and_returns_what_its_body_does(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def body(fails: bool) -> str:
        with step_body():
            if fails:
                raise InputError("small.yaml: name: required")
            return "done"

    assert body(False) == "done"
    with pytest.raises(SystemExit) as raised:
        body(True)

    assert raised.value.code == 2
    assert capfd.readouterr().err == "error: small.yaml: name: required\n"


def test_a_step_that_was_asked_to_end_has_failed() -> None:
    with pytest.raises(SystemExit) as raised, step_body():
        raise PreemptedError("asked to end")

    assert raised.value.code == 1
