"""The learning rate of the step after: the schedule is off by one."""

from typing import Any

from tf_pipeline import optimizer
from tf_pipeline.__main__ import main

at = optimizer._Table.__call__


def one_later(self: Any, step: Any) -> Any:
    return at(self, step + 1)


optimizer._Table.__call__ = one_later
main()
