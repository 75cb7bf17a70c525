"""The method itself, checked: how often it sees a difference that is not there, or misses one."""

import math
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.data import OutputOption
from benchmarks.error_rates import (
    POWER_ASKED,
    SIGNIFICANT,
    VERDICTS,
    Rate,
    rates,
    repeats_calculated,
    repeats_to_find,
    spread,
)
from benchmarks.report import keep, record_of
from benchmarks.series import COMPARISONS, SLOWED_SHARE, Comparison, Series
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError
from pipelines.parity.software import describe_frameworks
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework
from pipelines.study_config import StudyConfig

_SLOWER = (0.05, 0.10)
"""What is calculated: how many repeats it takes to find a side so much slower."""
_LEAST_PAIRS = StudyConfig().repeats


def main(
    only: Annotated[Framework | None, typer.Option(help="Leave the other alone.")] = None,
    equal: Annotated[int, typer.Option(min=3, help="Pairs of equal runs.")] = 60,
    slowed: Annotated[int, typer.Option(min=3, help="Pairs, one of each slowed down.")] = 30,
    steps: Annotated[
        int, typer.Option(min=51, help="Steps of each run, 50 of them warm-up.")
    ] = 300,
    runs: Annotated[Path, typer.Option(help="Folder that keeps the runs; goes on with it.")] = Path(
        "out/method"
    ),
    greatest_load: Annotated[
        float, typer.Option(help="Load average of the machine above which no pair is begun.")
    ] = math.inf,
    measure: Annotated[bool, typer.Option(help="Or only evaluate what is there.")] = True,
    output: OutputOption = None,
) -> None:
    """Each framework against itself, and against itself slowed down by a known share."""
    series = [
        Series(_config(runs / each, steps), each) for each in ([only] if only else FRAMEWORKS)
    ]
    pairs: dict[Comparison, int] = {"equal": equal, "slowed": slowed}
    for each in series:
        if measure:
            each.measure(pairs, lambda text: typer.echo(text, err=True), greatest_load)
    evaluated = {each.framework: _evaluate(each) for each in series}
    for framework, found in evaluated.items():
        _print(framework, found)
    if output is not None:
        versions = describe_frameworks(_config(runs, steps))
        record = record_of("method") | {
            "versions": {name: found["framework_version"] for name, found in versions.items()},
            "settings": {
                "steps": steps,
                "slowed_share": SLOWED_SHARE,
                "greatest_load": greatest_load if math.isfinite(greatest_load) else None,
            },
            "frameworks": {
                each.framework: _plain(evaluated[each.framework])
                | {"runs": [asdict(run) for run in each.runs]}
                for each in series
            },
        }
        keep(record, output)


def _config(output: Path, steps: int) -> Config:
    """The quickstart's runs on one worker."""
    settings = (f"output={output}", f"training.steps={steps}", "study.workers=[1]", "name=method")
    return load_config(PROJECT_ROOT / "configs" / "quickstart.yaml", [*settings])


def _evaluate(series: Series) -> dict[str, Any]:
    equal, slow = (series.pairs(comparison) for comparison in COMPARISONS)
    if min(len(equal), len(slow)) < _LEAST_PAIRS:
        raise InputError(
            f"--runs: {series.framework} has {len(equal)} equal and {len(slow)} slowed pairs, but "
            f"a study takes {_LEAST_PAIRS}; run without --no-measure"
        )
    return {
        "spread": {"equal": spread(equal), "slowed": spread(slow)},
        "rates": {name: rates(verdict, equal, slow) for name, verdict in VERDICTS.items()},
        "repeats_calculated": {
            f"{slower:.0%}": repeats_calculated(spread(equal)["runs"], slower) for slower in _SLOWER
        },
    }


def _answers(of_verdict: Iterable[Rate]) -> dict[str, bool]:
    """Whether the verdict does what is asked of it, at the number of repeats that is the default.

    As few studies as these cannot tell 5 % from a little more: the interval must not exclude it.
    """
    repeats = StudyConfig().repeats
    of_kind = {rate.kind: rate for rate in of_verdict if rate.repeats == repeats}
    false, found = of_kind["false"], of_kind["found"]
    assert false.interval95 is not None, "studies that share no pair have one"
    return {
        "false_at_most_5_percent": false.interval95[0] <= SIGNIFICANT,
        "slow_side_found_in_9_of_10": found.share >= POWER_ASKED,
    }


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    """The same for a record."""
    return {
        "spread": found["spread"],
        "repeats_calculated": found["repeats_calculated"],
        "verdicts": {
            name: {
                "answers": _answers(of_verdict),
                "repeats_to_find": {
                    kind: repeats_to_find(of_verdict, kind)
                    for kind in dict.fromkeys(rate.kind for rate in of_verdict)
                    if "found" in kind
                },
                "rates": [
                    asdict(rate) | {"share": rate.share, "interval95": rate.interval95}
                    for rate in of_verdict
                ],
            }
            for name, of_verdict in found["rates"].items()
        },
    }


def _print(framework: Framework, found: dict[str, Any]) -> None:
    console = Console()
    for name, of_verdict in found["rates"].items():
        kinds = list(dict.fromkeys(rate.kind for rate in of_verdict))
        table = Table(title=f"{FRAMEWORK_TITLES[framework]}: {name} verdict", box=SIMPLE)
        table.add_column("repeats", justify="right")
        for kind in kinds:
            table.add_column(kind, justify="right")
        for repeats in dict.fromkeys(rate.repeats for rate in of_verdict):
            cells = {rate.kind: _cell(rate) for rate in of_verdict if rate.repeats == repeats}
            table.add_row(str(repeats), *(cells.get(kind, "") for kind in kinds))
        console.print(table)
        for what, answer in _answers(of_verdict).items():
            console.print(f"- {what.replace('_', ' ')}: {'yes' if answer else 'NO'}")
    for comparison, figures in found["spread"].items():
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        console.print(f"- {comparison} pairs: {told}", highlight=False)
    for slower, repeats in found["repeats_calculated"].items():
        console.print(f"- calculated from the equal pairs: {repeats} repeats find {slower}")


def _cell(rate: Rate) -> str:
    counted = f"{rate.called}/{rate.studies}"
    if rate.interval95 is None:
        return f"{rate.share:.0%} of {rate.studies}"
    return f"{counted} ({rate.interval95[0]:.0%} to {rate.interval95[1]:.0%})"


if __name__ == "__main__":
    typer.run(main)
