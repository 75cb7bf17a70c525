"""How often a verdict calls a difference in the studies that a series of pairs falls into.

A study of R repeats a side is R pairs in a row. Cut without overlap, the studies are independent
of each other and have a binomial interval. All windows of R pairs, with the sides of each pair
swapped at random where they are equal, use the series better, but overlap: a share, no interval.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from benchmarks.series import Pair
from pipelines.compare import statistics
from pipelines.compare.model import Interval

__all__ = [
    "POWER_ASKED",
    "REPEATS",
    "SIGNIFICANT",
    "VERDICTS",
    "Call",
    "Kind",
    "Rate",
    "Study",
    "Verdict",
    "cut",
    "rates",
    "repeats_calculated",
    "repeats_to_find",
    "slowed",
    "spread",
    "swapped",
    "windows",
]

Call = Literal["a faster", "b faster", "neither"]
Study = Sequence[Pair]
Verdict = Callable[[Study], Call]
"""What is concluded from the pairs of a study."""
Kind = Literal[
    "false",
    "false, overlapping",
    "found",
    "found, overlapping",
    "5 % found, computed",
    "10 % found, computed",
]
"""What a rate is the share of: differences called between equal sides, and slow sides found.
``computed``: the equal runs, side b's throughput divided by 1.05 or 1.10."""

REPEATS = (3, 5, 7, 10, 15, 20, 30)
"""Repeats a side for which the rates are worked out."""
POWER_ASKED = 0.9
"""Share of studies that should find a difference."""
SIGNIFICANT = 0.05
"""Share of studies that may find one where there is none."""

_MOST_REPEATS = 10_000

_ANY, _RIGHT = frozenset({"a faster", "b faster"}), frozenset({"a faster"})
_SWAPS = 4
"""Random labellings of each window of equal pairs."""
_SEED = 20_240_229


def independent(pairs: Study) -> Call:
    """The report's own verdict, to which the sides are two independent samples."""
    one, other = zip(*pairs, strict=True)
    calls: dict[str, Call] = {"torch faster": "a faster", "tf faster": "b faster"}
    return calls.get(statistics.verdict(one, other), "neither")


def paired(pairs: Study) -> Call:
    """Student's t-test of the logarithms of each pair's ratio."""
    logs = np.log([one / other for one, other in pairs])
    if np.ptp(logs) and stats.ttest_1samp(logs, 0).pvalue >= SIGNIFICANT:
        return "neither"
    return "a faster" if logs.mean() > 0 else "b faster" if logs.mean() < 0 else "neither"


VERDICTS: dict[str, Verdict] = {"independent": independent, "paired": paired}
"""By name; ``independent`` is the one that reports use."""


@dataclass(frozen=True)
class Rate:
    """How many of so many studies called a difference: any between equals, else the right one."""

    kind: Kind
    repeats: int
    called: int
    studies: int

    @property
    def share(self) -> float:
        """Of all studies."""
        return self.called / self.studies

    @property
    def interval95(self) -> Interval | None:
        """Exact binomial interval (Clopper & Pearson, 1934); None where the studies overlap."""
        if self.kind not in ("false", "found"):
            return None
        low, high = stats.binomtest(self.called, self.studies).proportion_ci(0.95)
        return float(low), float(high)


def cut(pairs: Sequence[Pair], repeats: int) -> Iterator[Study]:
    """Studies that share no pair; what is left over at the end is in none."""
    for start in range(0, len(pairs) - repeats + 1, repeats):
        yield pairs[start : start + repeats]


def windows(pairs: Sequence[Pair], repeats: int) -> Iterator[Study]:
    """Every study of consecutive pairs."""
    for start in range(len(pairs) - repeats + 1):
        yield pairs[start : start + repeats]


def swapped(studies: Iterable[Study]) -> Iterator[Study]:
    """Each study several times, the sides of each of its pairs as a coin says.

    Between equal sides any labelling is as likely as the one that was measured.
    """
    draw = np.random.default_rng(_SEED)
    for study in studies:
        for _ in range(_SWAPS):
            coins = draw.integers(2, size=len(study))
            yield [pair[::-1] if coin else pair for pair, coin in zip(study, coins, strict=True)]


def slowed(studies: Iterable[Study], share: float) -> Iterator[Study]:
    """The same studies, had each step of side b taken longer by ``share``."""
    for study in studies:
        yield [(one, other / (1 + share)) for one, other in study]


def rates(
    verdict: Verdict,
    equal: Sequence[Pair],
    slow: Sequence[Pair],
    repeats_asked: Iterable[int] = REPEATS,
) -> list[Rate]:
    """All rates of one verdict: of every kind, at every number of repeats there are studies of."""
    found = []
    for repeats in repeats_asked:
        any_labels = list(swapped(windows(equal, repeats)))
        studies: dict[Kind, Iterable[Study]] = {
            "false": cut(equal, repeats),
            "false, overlapping": any_labels,
            "found": cut(slow, repeats),
            "found, overlapping": windows(slow, repeats),
            "5 % found, computed": slowed(any_labels, 0.05),
            "10 % found, computed": slowed(any_labels, 0.10),
        }
        for kind, of_kind in studies.items():
            wanted = _ANY if kind.startswith("false") else _RIGHT
            calls = [verdict(study) for study in of_kind]
            if calls:
                called = sum(call in wanted for call in calls)
                found.append(Rate(kind, repeats, called, len(calls)))
    return found


def repeats_to_find(found: Iterable[Rate], kind: Kind) -> int | None:
    """The fewest repeats from which on at least 9 of 10 studies find the difference, if any do."""
    enough = None
    for rate in sorted(
        (each for each in found if each.kind == kind), key=lambda each: each.repeats
    ):
        if rate.share < POWER_ASKED:
            enough = None
        elif enough is None:
            enough = rate.repeats
    return enough


def repeats_calculated(scatter: float, slower: float) -> int:
    """Repeats a side that it takes to find steps which last ``slower`` longer, by calculation.

    For 9 of 10 studies, each a two-sample t-test at 5 %, where the logarithms of the throughputs
    scatter normally by ``scatter`` and nothing drifts (noncentral t distribution).
    """

    def power(repeats: int) -> float:
        freedom = 2 * repeats - 2
        shift = np.log1p(slower) / scatter * np.sqrt(repeats / 2)
        return float(stats.nct.sf(stats.t.ppf(1 - SIGNIFICANT / 2, freedom), freedom, shift))

    fewest = 3
    return bisect_left(range(fewest, _MOST_REPEATS), POWER_ASKED, key=power) + fewest


def spread(pairs: Sequence[Pair]) -> dict[str, float]:
    """Of the logarithms, so in shares of the throughput: how runs scatter, and pairs together.

    ``ratio`` is that of the medians, b over a, with the ends of its interval.
    """
    one, other = np.log(np.array(pairs)).T
    ends = statistics.interval_of_ratio(np.exp(other), np.exp(one))
    assert ends is not None, "two pairs at least"
    return {
        "runs": float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2)),
        "ratio_of_a_pair": float((other - one).std(ddof=1)),
        "correlation_in_pairs": float(np.corrcoef(one, other)[0, 1]),
        "ratio": float(np.exp(np.median(other) - np.median(one))),
        "ratio_low": ends[0],
        "ratio_high": ends[1],
    }
