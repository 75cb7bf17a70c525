"""How figures are written out, the same on the page, on the terminal and in sentences."""

from collections.abc import Iterable, Mapping

from pipelines.compare.model import Interval, Report, Verdict
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
    "mebibytes",
    "milliseconds",
    "percent",
    "percents",
    "phase_title",
    "rate",
    "seconds",
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
