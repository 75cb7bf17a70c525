"""What a training run loses to faults, and how long it takes to be back: the fault table."""

import dataclasses
import os

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.data import OutputOption, ScratchOption, scratch_folder
from benchmarks.faults import FAULTS, NEEDS_ROOT, Outcome, Runs
from benchmarks.report import keep, record_of
from pipelines.config import load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.parity.software import describe_frameworks
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework


def main(output: OutputOption = None, scratch: ScratchOption = None) -> None:
    """Every fault, done to a run of each framework on two workers."""
    console = Console(stderr=True)
    outcomes: dict[Framework, dict[str, Outcome]] = {}
    with scratch_folder(scratch) as folder:
        for framework in FRAMEWORKS:
            runs, found = Runs(framework, folder / framework), outcomes.setdefault(framework, {})
            for fault, inflict in FAULTS.items():
                if fault in NEEDS_ROOT and os.geteuid() != 0:
                    console.print(f"{fault}: needs root, left out")
                    continue
                console.print(f"{FRAMEWORK_TITLES[framework]}: {fault}")
                found[fault] = inflict(runs)
    _print(outcomes)
    if output is not None:
        keep(_record(outcomes), output)


def _print(outcomes: dict[Framework, dict[str, Outcome]]) -> None:
    for framework, found in outcomes.items():
        table = Table(title=f"What became of {FRAMEWORK_TITLES[framework]}'s runs", box=SIMPLE)
        table.add_column("fault", no_wrap=True)
        for heading in ("lost", "back after", "difference", "final loss"):
            table.add_column(heading, justify="right", no_wrap=True)
        for fault, outcome in found.items():
            back, difference = outcome.recovery_seconds, outcome.largest_difference
            table.add_row(
                fault,
                str(outcome.lost_steps),
                "went on" if back is None else f"{back:.1f} s",
                f"{difference:.1e}" if difference else "0",
                f"{outcome.final_loss:.6f}",
            )
        Console().print(table)


def _record(outcomes: dict[Framework, dict[str, Outcome]]) -> dict[str, object]:
    versions = describe_frameworks(load_config(PROJECT_ROOT / "configs" / "quickstart.yaml"))
    return record_of("survival") | {
        "versions": {name: found["framework_version"] for name, found in versions.items()},
        "outcomes": {
            framework: {
                fault: {
                    name: value
                    for name, value in dataclasses.asdict(outcome).items()
                    if name not in ("said", "metrics")  # what was said has this machine's paths
                }
                for fault, outcome in found.items()
            }
            for framework, found in outcomes.items()
        },
    }


if __name__ == "__main__":
    typer.run(main)
