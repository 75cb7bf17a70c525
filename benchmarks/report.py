"""A benchmark's result: a table for people, and JSON with all that it takes to judge it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Runs
from pipelines.environments import PROJECT_ROOT
from pipelines.hardware import available_cores, describe_hardware

__all__ = ["Ratio", "keep", "publish", "ratio_of", "record_of"]


@dataclass(frozen=True)
class Ratio:
    """One figure: a measure of ours over theirs, in every round they shared."""

    name: str
    values: Sequence[float]
    at_least: float | None = None
    """What was asked for; None: shown for context."""
    at_most: float | None = None

    @property
    def value(self) -> float:
        """The median over the rounds."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether it is what was asked for; None if nothing was."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def asked(self) -> str:
        """What was asked for, for people."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"


def ratio_of(
    results: Mapping[str, Runs],
    ours: str,
    theirs: str,
    *,
    measure: str = "rows_per_second",
    at_least: float | None = None,
    at_most: float | None = None,
) -> Ratio:
    """How much more of a measure one contestant has than another, round by round."""
    pairs = zip(results[ours].values(measure), results[theirs].values(measure), strict=False)
    values = [one / other for one, other in pairs]
    what = "" if measure == "rows_per_second" else f", {measure.replace('_', ' ')}"
    return Ratio(f"{ours} / {theirs}{what}", values, at_least=at_least, at_most=at_most)


def publish(
    name: str,
    settings: Mapping[str, Any],
    results: Mapping[str, Runs],
    ratios: Sequence[Ratio],
    notes: Sequence[str],
    output: Path | None,
) -> None:
    """Print a benchmark's result and, if ``output`` is given, write it there as JSON."""
    _print(name, results, ratios, notes)
    if output is None:
        return
    record = record_of(name) | {
        "settings": dict(settings),
        "ratios": [
            {
                "name": ratio.name,
                "value": ratio.value,
                "least": min(ratio.values),
                "greatest": max(ratio.values),
                "asked": ratio.asked,
                "met": ratio.met,
            }
            for ratio in ratios
        ],
        "contestants": {
            contestant: {"versions": runs.versions, "rounds": runs.measures}
            for contestant, runs in results.items()
        },
        "notes": list(notes),
    }
    keep(record, output)


def record_of(name: str) -> dict[str, Any]:
    """What every benchmark's record begins with: what was measured, when, and on what."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": describe_hardware(),
        "cores_used": len(available_cores()),
    }


def keep(record: Mapping[str, Any], output: Path) -> None:
    """Write a benchmark's record, its folder made if it is not there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=2) + "\n")


def _print(
    name: str, results: Mapping[str, Runs], ratios: Sequence[Ratio], notes: Sequence[str]
) -> None:
    console = Console()
    keys = (key for runs in results.values() for key in runs.measures[0] if key != "rows")
    measured = list(dict.fromkeys(keys))
    table = Table(title=f"{name}: median (least to greatest)")
    table.add_column("contestant")
    for key in measured:
        heading = key.replace("_bytes", ", MiB").replace("_", " ")
        table.add_column(heading, justify="right")
    for contestant, runs in results.items():
        cells = [_cell(runs, key) if key in runs.measures[0] else "" for key in measured]
        table.add_row(contestant, *cells)
    console.print(table)
    table = Table(title="Ratios: median (least to greatest)")
    for heading in ("ratio", "value", "asked for", "met"):
        table.add_column(heading)
    for ratio in ratios:
        spread = f"{ratio.value:.2f} ({min(ratio.values):.2f} to {max(ratio.values):.2f})"
        met = {True: "yes", False: "NO", None: ""}[ratio.met]
        table.add_row(ratio.name, spread, ratio.asked, met)
    console.print(table)
    for note in notes:
        console.print(f"- {note}", highlight=False)


def _cell(runs: Runs, key: str) -> str:
    values = [each / 2**20 if key.endswith("_bytes") else each for each in runs.values(key)]
    digits = 2 if key.endswith("seconds") else 0
    middle, low, high = (
        f"{each:,.{digits}f}" for each in (median(values), min(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} to {high})"


def _commit() -> str:
    """The commit that was measured, marked if the tree differed from it; "" outside git."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    return described.stdout.strip()
