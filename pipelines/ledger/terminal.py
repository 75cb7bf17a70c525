"""The ledger on a terminal: both sides beside each other, and what changed since a commit."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.compare import formats
from pipelines.compare.maintenance_table import (
    TITLES,
    details_of,
    figure,
    reasons_of,
    rows_of,
    twin_files,
)
from pipelines.compare.terminal import bullet, table_of
from pipelines.ledger.against import Difference, FileChange, SideDifference
from pipelines.ledger.model import FileCode, Ledger
from pipelines.strategies import Framework

__all__ = ["print_difference", "print_ledger"]

_MOST_TOLD = 8
"""Of a list that the page and ``ledger.json`` have whole."""


def print_ledger(ledgers: Mapping[Framework, Ledger], console: Console) -> None:
    """Print both sides' ledgers; readable from 80 columns up."""
    rows = rows_of(
        {framework: each.metrics for framework, each in ledgers.items()},
        {framework: each.not_checked for framework, each in ledgers.items()},
    )
    table = table_of("What keeping each side costs", "<", *map(formats.title, ledgers))
    for row in rows:
        table.add_row(row.title, *(row.cells[name] for name in ledgers))
    if any(each.networked for each in ledgers.values()):
        asked = (each.networked[:10] if each.networked else None for each in ledgers.values())
        table.add_row("Network asked", *(day or formats.UNKNOWN for day in asked))
    console.print()
    console.print(table)
    for line in reasons_of(rows):
        console.print(bullet(line))
    console.print()
    console.print(_files({framework: each.files for framework, each in ledgers.items()}))
    for framework, ledger in ledgers.items():
        if not details_of(ledger):
            continue
        console.print()
        console.print(Text(formats.title(framework), style="bold"))
        for title, items in details_of(ledger).items():
            console.print(bullet(_some(title, items)))


def print_difference(difference: Difference, console: Console) -> None:
    """Print how the sides have changed since a commit."""
    table = table_of(
        f"Since {difference.revision} ({difference.commit[:12]}, {difference.commit_time[:10]})",
        "<",
        *(f"{formats.title(name)} {when}" for name in difference.sides for when in ("then", "now")),
    )
    for metric, title in TITLES.items():
        changes = [side.metrics.get(metric, (None, None)) for side in difference.sides.values()]
        if any(change != (None, None) for change in changes):
            changed = any(None not in change and change[0] != change[1] for change in changes)
            cells = [figure(metric, value) for change in changes for value in change]
            table.add_row(title, *cells, style="bold" if changed else None)
    console.print()
    console.print(table)
    if not all(side.mlflow_run_id for side in difference.sides.values()):
        missing = "no ledger was tracked at that commit: what git alone cannot tell of it is –"
        console.print(bullet(missing))
    for framework, side in difference.sides.items():
        lines = _changes(side)
        console.print()
        console.print(Text(formats.title(framework), style="bold"))
        for line in lines or ["nothing has changed in the twin's files, requirements and lock"]:
            console.print(bullet(line))


def _files(files: Mapping[Framework, Sequence[FileCode]]) -> Table:
    columns = (f"{name} {what}" for what in ("lines", "complexity") for name in files)
    table = table_of("Each file against its twin", "<file", "<role", *columns)
    for each in twin_files(files):
        counts = (*each.lines.values(), *each.complexity.values())
        table.add_row(each.file, each.role, *map(formats.count, counts))
    return table


def _some(title: str, items: list[str]) -> str:
    more = f"; {len(items) - _MOST_TOLD} more" if len(items) > _MOST_TOLD else ""
    return f"{title}: {'; '.join(items[:_MOST_TOLD])}{more}"


def _changes(side: SideDifference) -> list[str]:
    locked = [
        f"{name} {then or 'not there'} → {now or 'gone'}"
        for name, (then, now) in side.packages.items()
    ]
    return [
        *map(_file_line, side.files),
        *(
            f"asks for {now or 'no ' + name}, {'before ' + then if then else 'which is new'}"
            for name, (then, now) in side.requirements.items()
        ),
        *([_some("Lock", locked)] if locked else []),
    ]


def _file_line(change: FileChange) -> str:
    if change.lines[0] is None:
        return f"{change.file}: new, {change.lines[1]} lines"
    if change.lines[1] is None:
        return f"{change.file}: gone, {change.lines[0]} lines"
    lines, complexity = (
        " → ".join(str(value) for value in pair if value is not None)
        for pair in (change.lines, change.cyclomatic_complexity)
    )
    return f"{change.file}: {lines} lines, complexity {complexity}"
