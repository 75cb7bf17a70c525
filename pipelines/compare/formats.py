"""How figures are written out, the same on the page, on the terminal and in sentences."""

import math
from collections.abc import Callable, Iterable, Mapping

from pipelines.compare.model import Interval, Report, Verdict
from pipelines.compare.scorecard import Better
from pipelines.metrics import METRICS
from pipelines.strategies import FRAMEWORK_TITLES, Framework

__all__ = [
    "JUDGED",
    "UNKNOWN",
    "count",
    "gibibytes",
    "interval",
    "judged",
    "judged_title",
    "kibibytes",
    "measure",
    "mebibytes",
    "milliseconds",
    "money",
    "percent",
    "percents",
    "phase_title",
    "priced",
    "rate",
    "seconds",
    "side",
    "stages",
    "strong",
    "title",
    "verdict",
    "workers",
    "yes_no",
]

JUDGED = tuple(
    name
    for name, metric in METRICS.items()
    if name.startswith("eval_") and metric.better and name != "eval_loss"
)
"""The metrics of evaluation that a workload has one of, besides its loss."""

UNKNOWN = "–"
"""Stands for a figure that is not known."""


def title(framework: Framework, strategy: str = "") -> str:
    """Such as ``PyTorch ddp``."""
    return f"{FRAMEWORK_TITLES[framework]} {strategy}".rstrip()


def strong(scaling: str) -> str:
    """What a name has in addition under strong scaling; weak scaling is the usual."""
    return ", strong" if scaling == "strong" else ""


def rate(value: float | None) -> str:
    """Examples per second, three digits or more."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Seconds, three digits or more, with the unit."""
    if value is None:
        return UNKNOWN
    if abs(value) >= 100:
        return f"{value:,.0f} s"
    return f"{value:.1f} s" if abs(value) >= 10 else f"{value:.2f} s"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent."""
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def percents(ends: Interval | None) -> str:
    """Both ends of an interval of shares, as per cent."""
    return interval(ends and (100 * ends[0], 100 * ends[1]), "{:.1f} %")


def milliseconds(value: float | None) -> str:
    """Seconds as milliseconds, with the unit."""
    return UNKNOWN if value is None else f"{1000 * value:.1f} ms"


def kibibytes(value: float | None) -> str:
    """Bytes as KiB."""
    return UNKNOWN if value is None else f"{value / 2**10:,.0f} KiB"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB."""
    return UNKNOWN if value is None else f"{value / 2**20:,.0f} MiB"


def gibibytes(value: float | None) -> str:
    """Bytes as GiB."""
    return UNKNOWN if value is None else f"{value / 2**30:.1f} GiB"


def count(value: int | None) -> str:
    """A whole number."""
    return UNKNOWN if value is None else f"{value:,}"


def money(amount: float | None) -> str:
    """An amount, three digits or more, without the currency."""
    if amount is None:
        return UNKNOWN
    if abs(amount) >= 100 or amount == 0:
        return f"{amount:,.0f}"
    return f"{amount:.{max(0, 2 - math.floor(math.log10(abs(amount))))}f}"


def priced(amount: float | None, example: bool) -> str:
    """An amount, and whether it rests on made-up prices."""
    return f"{money(amount)} (example prices)" if example and amount is not None else money(amount)


def measure(value: float | None, unit: str) -> str:
    """A value with its unit, as the table of metrics names units."""
    if value is None:
        return UNKNOWN
    known: dict[str, Callable[[float], str]] = {
        "s": seconds,
        "share": percent,
        "B": gibibytes,
        "1/s": lambda value: f"{rate(value)}/s",
        "0 or 1": lambda value: yes_no(bool(value)),
    }
    if unit in known:
        return known[unit](value)
    number = f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
    return number if unit == "count" else f"{number} {unit}"


def interval(ends: Interval | None, pattern: str = "{:,.0f}") -> str:
    """Both ends of an interval by one format pattern."""
    if ends is None:
        return UNKNOWN
    return f"{pattern.format(ends[0])} to {pattern.format(ends[1])}"


def verdict(value: Verdict) -> str:
    """A verdict by the framework's full name."""
    return value.replace("torch", FRAMEWORK_TITLES["torch"]).replace("tf", FRAMEWORK_TITLES["tf"])


def judged(metrics: Mapping[str, float]) -> str:
    """The workload's own metric of evaluation: a share as per cent, else three digits."""
    for name in JUDGED:
        if name in metrics:
            share = METRICS[name].unit == "share"
            return percent(metrics[name]) if share else f"{metrics[name]:.3g}"
    return UNKNOWN


def judged_title(all_metrics: Iterable[Mapping[str, float]]) -> str:
    """What that metric is called, in whichever has one first."""
    for metrics in all_metrics:
        for name in JUDGED:
            if name in metrics:
                return name.removeprefix("eval_").replace("auc", "AUC")
    return "metric"


def side(better: Better) -> str:
    """Which side a criterion of the scorecard goes to, or why to none."""
    return title(better) if better == "tf" or better == "torch" else better


def yes_no(value: bool | None) -> str:
    """A truth that may not be known."""
    return {True: "yes", False: "no", None: UNKNOWN}[value]


def workers(count: int) -> str:
    """A worker count with its noun."""
    return f"{count} worker{'' if count == 1 else 's'}"


def stages(report: Report) -> list[str]:
    """Every stage that some pipeline timed, in order."""
    return list(dict.fromkeys(name for run in report.pipelines.values() for name in run.stages))


def phase_title(name: str) -> str:
    """``first_step_seconds`` as ``first step``."""
    return name.removesuffix("_seconds").replace("_", " ")
