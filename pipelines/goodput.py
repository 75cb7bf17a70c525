"""The goodput ledger: what of a run's wall clock was steps that count, and what became of the rest.

The causes follow Google's ml-goodput-measurement. Each is measured by itself, none is what the
others leave: that they add up to the wall clock is a check, not a definition. A worker knows its
own life (``spend``); what lies around it, and what became of attempts that failed, only its
launcher does (``RunLedger``).
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CATEGORIES", "LEDGER", "RunLedger", "Spent", "goodput_metrics", "spend"]

_CATEGORY_OF_PHASE = {
    "start_seconds": "initialisation",
    "import_seconds": "initialisation",
    "tracking_seconds": "tracking",
    "rendezvous_seconds": "initialisation",
    "build_seconds": "initialisation",
    "restore_seconds": "checkpoint_restore",
    "first_step_seconds": "step",
    "warmup_seconds": "step",
    "train_seconds": "step",
    "checkpoint_seconds": "checkpoint_save",
    "evaluate_seconds": "evaluation",
    "report_seconds": "tracking",
    "exit_seconds": "shutdown",
}

CATEGORIES = (
    "step",
    *("initialisation", "data_wait", "checkpoint_save", "checkpoint_restore", "wasted_steps"),
    *("evaluation", "tracking", "barrier", "shutdown"),
)
"""Steps that count, which alone are goodput, and the causes of all other time."""
LEDGER = ("goodput_seconds", *(f"badput_{category}_seconds" for category in CATEGORIES[1:]))
"""Their metrics, which add up to a run's ``wall_seconds``."""

Spent = dict[str, float]
"""Category -> seconds; of one that is not there: none."""


def spend(
    phases: Mapping[str, float],
    aside: Mapping[tuple[str, str], float],
    step_seconds: float,
) -> Spent:
    """Where a worker's life has gone so far.

    ``phases`` has the seconds of each. ``aside`` has, by phase and category, what lay within a
    phase and is not of its category: waiting for a batch, or for the other workers. What the
    first step takes beyond ``step_seconds``, a step's usual time, is initialisation.
    """
    spent = dict.fromkeys(CATEGORIES, 0.0)
    for phase, seconds in phases.items():
        spent[_CATEGORY_OF_PHASE[phase]] += seconds
    for (phase, category), seconds in aside.items():
        spent[_CATEGORY_OF_PHASE[phase]] -= seconds
        spent[category] += seconds
    compiling = max(phases.get("first_step_seconds", 0.0) - step_seconds, 0.0)
    spent["step"] -= compiling
    spent["initialisation"] += compiling
    return spent


def goodput_metrics(spent: Mapping[str, float], wall_seconds: float) -> dict[str, float]:
    """The ledger under the names of the metrics table."""
    ledger = {
        name: spent.get(category, 0.0) for name, category in zip(LEDGER, CATEGORIES, strict=True)
    }
    return {"goodput_share": ledger["goodput_seconds"] / wall_seconds, **ledger}


@dataclass
class _Attempt:
    begun: float
    heard: float
    """When rank 0 last said where it was."""
    spent: Spent = field(default_factory=dict)
    """Rank 0's account, as of then."""
    start: int | None = None
    """Steps that were done before it; None: as far as one knows it has done none itself."""
    done: int = 0
    after: float = 0.0
    """Seconds from rank 0's last word to the end."""


class RunLedger:
    """The ledger of a run over all its attempts, as its launcher hears of them.

    Its clock is the launcher's; what a worker has measured it says in its events.
    """

    def __init__(self) -> None:
        self._attempts: list[_Attempt] = []
        self._last_phases: dict[str, float] = {}
        """Of rank 0, once it has said its last word: what it could not log any more."""

    def begin(self) -> None:
        """An attempt begins."""
        now = time.perf_counter()
        self._attempts.append(_Attempt(now, now))
        self._last_phases = {}

    def started(self) -> None:
        """Its first process has just been started."""
        self._attempts[-1].begun = self._attempts[-1].heard = time.perf_counter()

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take note of what rank 0 says."""
        attempt = self._attempts[-1]
        if "spent" in event:
            attempt.heard = time.perf_counter()
            attempt.spent = event["spent"]
        if event["event"] == "step":
            attempt.done = event["step"]
            if attempt.start is None:
                attempt.start = attempt.done - 1
        elif event["event"] == "ended":
            self._last_phases = event["phases"]

    def fail(self) -> float:
        """The attempt has failed; returns how many seconds it took."""
        attempt, now = self._attempts[-1], time.perf_counter()
        attempt.after = now - attempt.heard
        return now - attempt.begun

    def end(self, seconds: float) -> None:
        """The attempt has ended well, ``seconds`` after the start of its first process."""
        attempt = self._attempts[-1]
        attempt.after = attempt.begun + seconds - attempt.heard

    def metrics(self, wall_seconds: float) -> dict[str, float]:
        """The ledger, and the phases that a worker cannot know.

        Empty if rank 0 has not told of its end.
        """
        if not self._last_phases:
            return {}
        *failed, last = self._attempts
        total = defaultdict(float, last.spent)
        total["shutdown"] += last.after
        for number, attempt in enumerate(failed):
            lost = 1 - self._share_kept(number)
            for category, seconds in attempt.spent.items():
                wasted = lost * seconds if category in ("step", "data_wait") else 0.0
                total[category] += seconds - wasted
                total["wasted_steps"] += wasted
            total["wasted_steps"] += attempt.after
        return {
            **goodput_metrics(total, wall_seconds),
            "report_seconds": self._last_phases["report_seconds"],
            "exit_seconds": self._last_phases["exit_seconds"] + last.after,
        }

    def _share_kept(self, number: int) -> float:
        """Of an attempt's steps, that which no later attempt has done again."""
        attempt = self._attempts[number]
        if attempt.start is None:
            return 0.0
        later = [each.start for each in self._attempts[number + 1 :] if each.start is not None]
        kept = min([attempt.done, *later]) - attempt.start
        return max(kept, 0) / (attempt.done - attempt.start)
