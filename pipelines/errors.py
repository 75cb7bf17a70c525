"""Every error that Tandem raises on purpose, and the exit code each one ends with.

::

    TandemError                  1
    ├── WorkError                1   the work itself failed: a worker died, a stage broke
    │   ├── DivergedError        1   the loss is no longer finite, and would be so again
    │   └── UnansweredError      1   a server is away, or says that it cannot now
    ├── PreemptedError           0   a run was asked to end, and has saved where it is
    ├── InputError               2   what the user gave is wrong; says where and what to do
    │   └── DeniedError          2   a server knows the user, who may not do that there
    └── ComparisonRefusedError   3   two runs that did not do the same work
"""

__all__ = [
    "ComparisonRefusedError",
    "DeniedError",
    "DivergedError",
    "InputError",
    "PreemptedError",
    "TandemError",
    "UnansweredError",
    "WorkError",
]


class TandemError(Exception):
    """The base of all expected errors; its message is one line for the user."""

    exit_code = 1


class WorkError(TandemError):
    """The input was right, but the work failed."""

    exit_code = 1


class DivergedError(WorkError):
    """The loss is not finite at a step, nor would it be in a second attempt."""


class UnansweredError(WorkError):
    """A server does not answer, or not now; asked again later it may."""


class PreemptedError(TandemError):
    """A run was asked to end (SIGTERM) and has saved where it is: no failure."""

    exit_code = 0


class InputError(TandemError):
    """The input was wrong: the message names the file and the field, and says what to do."""

    exit_code = 2


class DeniedError(InputError):
    """A server knows these credentials, but what was asked of it is not for their user."""


class ComparisonRefusedError(TandemError):
    """Runs were asked to be compared that provably did not do the same work.

    ``differences`` maps each field that differs to the values found, sorted.
    """

    exit_code = 3

    def __init__(self, message: str, differences: dict[str, list[str]]) -> None:
        super().__init__(message)
        self.differences = differences
