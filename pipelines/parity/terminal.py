"""The verdict on a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.parity import formats
from pipelines.parity.model import Parity

__all__ = ["print_parity"]

_WIDE = 140


def print_parity(parity: Parity, console: Console) -> None:
    """Print what each pair of runs came to, then the rule; readable from 80 columns up."""
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("runs", overflow="fold")
    table.add_column("relative difference")
    for figure in (f"first {parity.first_steps}", "all @step", "× noise"):
        table.add_column(figure, justify="right", no_wrap=True)
    for comparison in parity.comparisons:
        good = comparison.kind == "order" or comparison.divergence is None
        told = Text.assemble(
            comparison.title,
            "\n",
            (formats.verdict(comparison), "dim" if good else "red"),
        )
        rows = [
            (
                formats.name(each.quantity),
                formats.tiny(each.first_steps),
                formats.largest(comparison, each.quantity),
                formats.times(each.times_floor),
            )
            for each in comparison.steps
        ]
        end = comparison.ends[0]
        rows.append(
            (
                formats.name(end.quantity),
                "",
                formats.tiny(end.difference),
                formats.times(end.times_floor),
            )
        )
        table.add_row(told, *("\n".join(column) for column in zip(*rows, strict=True)))
    console.print()
    console.print(table)
    console.print()
    console.print(Text(f"Allowed in {formats.explanation(parity)}", style="dim"))
