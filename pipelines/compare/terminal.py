"""The report on a terminal: the answers first, then the tables they rest on."""

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.compare import formats
from pipelines.compare.model import Report
from pipelines.compare.overhead_rows import overhead_lines
from pipelines.strategies import Framework

__all__ = ["bullet", "print_report", "table_of"]

_STYLES: dict[Framework, str] = {"tf": "dark_orange", "torch": "slate_blue1"}
_NARROW = 96
"""Terminal columns below which names are shortened and memory is left to the page."""


def print_report(report: Report, console: Console) -> None:
    """Print a report; readable from 80 columns up."""
    console.print()
    console.print(
        Text.assemble((report.study or "unnamed study", "bold"), f"  {report.study_id}"),
        overflow="fold",
    )
    for finding in report.findings:
        console.print()
        console.print(Text.assemble((finding.headline, "bold"), f"  {finding.topic}"))
        console.print(Text(finding.statement), style="dim")
    wide = console.width >= _NARROW
    tables = [
        _cells(report, wide) if report.cells else None,
        _scaling(report, wide) if any(p.workers > p.base_workers for p in report.scaling) else None,
        _differences(report) if report.differences else None,
        _splits(report, wide) if report.splits else None,
        _pipelines(report) if report.pipelines else None,
        _overhead(report) if report.overhead else None,
        _cost(report) if report.cost else None,
        _scorecard(report) if report.scorecard else None,
        _failed(report) if report.failed else None,
    ]
    for table in tables:
        if table is not None:
            console.print()
            console.print(table)
    if report.notes:
        console.print()
        for note in report.notes:
            console.print(bullet(note))


def bullet(note: str) -> Table:
    """A hanging indent, which Rich only gives to cells."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text("-", style="dim"), Text(note, style="dim"))
    return grid


def table_of(title: str, *columns: str) -> Table:
    """A table whose columns are right-aligned unless their header starts with ``<``."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        text = column.startswith("<")
        table.add_column(
            column.removeprefix("<"), justify="left" if text else "right", overflow="fold"
        )
    return table


def _name(framework: Framework, strategy: str, scaling: str, wide: bool) -> Text:
    name = formats.title(framework, strategy) if wide else f"{framework} {strategy}"
    return Text(name + formats.strong(scaling), style=_STYLES[framework])


def _cells(report: Report, wide: bool) -> Table:
    columns = ["<framework, strategy", "workers", "examples/s", "95 % interval", "wall"]
    columns.append(formats.judged_title(cell.eval_metrics for cell in report.cells))
    table = table_of("Training runs", *columns, *(["memory"] if wide else []))
    for cell in report.cells:
        table.add_row(
            _name(cell.framework, cell.strategy, cell.scaling, wide),
            str(cell.workers),
            formats.rate(cell.median),
            formats.interval(cell.interval95),
            formats.seconds(cell.wall_seconds),
            formats.judged(cell.eval_metrics),
            *([formats.mebibytes(cell.peak_memory_bytes)] if wide else []),
        )
    return table


def _scaling(report: Report, wide: bool) -> Table:
    table = table_of(
        "Scaling efficiency",
        "<framework, strategy", "workers", "base", "speed-up", "efficiency", "95 % interval",
    )  # fmt: skip
    for point in report.scaling:
        if point.workers == point.base_workers:
            continue
        table.add_row(
            _name(point.framework, point.strategy, point.scaling, wide),
            str(point.workers),
            str(point.base_workers),
            f"{point.speedup:.2f}",
            formats.percent(point.efficiency),
            formats.percents(point.interval95),
        )
    return table


def _differences(report: Report) -> Table:
    table = table_of(
        "PyTorch / TensorFlow, examples/s",
        "<strategies", "workers", "ratio", "95 % interval", "<verdict",
    )  # fmt: skip
    for difference in report.differences:
        table.add_row(
            Text(
                f"{difference.torch_strategy} / {difference.tf_strategy}"
                f"{formats.strong(difference.scaling)}"
            ),
            str(difference.workers),
            f"{difference.ratio:.2f}",
            formats.interval(difference.interval95, "{:.2f}"),
            formats.verdict(difference.verdict),
        )
    return table


def _splits(report: Report, wide: bool) -> Table:
    table = table_of(
        "Where a step goes",
        *("<framework, strategy", "workers", "step", "compute", "loop", "input", "communication"),
    )
    for split in report.splits:
        parts = (
            *(split.step_seconds, split.compute_seconds, split.host_seconds),
            *(split.input_seconds, split.communication_seconds),
        )
        table.add_row(
            _name(split.framework, split.strategy, split.scaling, wide),
            str(split.workers),
            *(formats.milliseconds(seconds) for seconds in parts),
        )
    return table


def _pipelines(report: Report) -> Table:
    """Stages as rows, so that two frameworks always fit."""
    runs = report.pipelines
    table = table_of("Pipelines", "<stage", *(formats.title(name) for name in runs))
    for stage in formats.stages(report):
        table.add_row(stage, *(formats.seconds(run.stages.get(stage)) for run in runs.values()))
    table.add_row(
        "whole DAG", *(formats.seconds(run.seconds) for run in runs.values()), style="bold"
    )
    table.add_row("from the cache", *(str(run.cached_stages) for run in runs.values()))
    judged = [formats.judged(run.eval_metrics) for run in runs.values()]
    named = formats.judged_title(run.eval_metrics for run in runs.values())
    table.add_row(f"eval {named}", *judged)
    table.add_row("blessed", *(formats.yes_no(run.blessed) for run in runs.values()))
    return table


def _overhead(report: Report) -> Table:
    table = table_of(
        "Running each side", "<measure", *(formats.title(name) for name in report.overhead)
    )
    for topic, lines in groupby(overhead_lines(report.overhead), lambda line: line.topic):
        table.add_row(Text(topic, style="bold"))
        for line in lines:
            table.add_row(f"  {line.label}", *(line.values[name] for name in report.overhead))
    return table


def _cost(report: Report) -> Table:
    """The sums, and the part of the last that is an assumption; the page has the others."""
    costs = report.cost.values()
    any_cost = next(iter(costs))
    title = f"Cost, {any_cost.currency} as of {any_cost.as_of}"
    table = table_of(title, "<what", *(formats.title(name) for name in report.cost))
    figures = {
        f"a run on {formats.workers(any_cost.workers)}": [cost.per_run.total for cost in costs],
        "a million examples": [cost.per_million_examples.total for cost in costs],
        "a model, its training": [cost.per_model.training for cost in costs],
        "a model, in all": [cost.per_model.total for cost in costs],
    }
    for what, sides in figures.items():
        table.add_row(what, *(formats.priced(each.amount, any_cost.example) for each in sides))
    return table


def _scorecard(report: Report) -> Table:
    """Where each criterion goes; the page has what speaks to it."""
    assert report.scorecard is not None
    table = table_of("Scorecard", "<criterion", "<better")
    for criterion in report.scorecard.criteria:
        table.add_row(criterion.title, formats.side(criterion.better))
    return table


def _failed(report: Report) -> Table:
    title = f"[red]Runs that do not count ({len(report.failed)})[/red]"
    table = table_of(title, "<run", "<status", "<why")
    for run in report.failed:
        again = "; run again since, and finished" if run.retried else ""
        name = Text.assemble(run.name, "\n", (run.run_id, "dim"))
        table.add_row(name, Text(run.status), Text(f"{run.reason}{again}"))
    return table
