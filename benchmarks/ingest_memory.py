"""Peak memory of an ingestion at many rows, against that at a tenth of them."""

from pathlib import Path

import typer

from benchmarks.data import (
    OutputOption,
    RepeatsOption,
    RowsOption,
    ScratchOption,
    remover,
    scratch_folder,
    synthetic_data,
)
from benchmarks.harness import Contestant, run_rounds
from benchmarks.report import publish, ratio_of

NOTES = [
    "peak tree: greatest sum of the proportional set sizes of the process and its descendants, "
    "sampled 20 times a second, interpreter and imports included.",
    "peak rss: the process's own maximum, as the kernel counts it.",
    "data.runner.name=direct with 2 workers on synthetic rows of the click log, 17 columns.",
]


def main(
    rows: RowsOption = 20_000_000,
    fewer_rows: RowsOption = 2_000_000,
    repeats: RepeatsOption = 2,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """Peak memory of an ingestion at many rows, against that at fewer."""
    with scratch_folder(scratch) as folder:
        few, many = f"{fewer_rows:,} rows", f"{rows:,} rows"
        contestants = [_contestant(few, fewer_rows, folder), _contestant(many, rows, folder)]
        results = run_rounds(contestants, repeats, lambda text: typer.echo(text, err=True))
    ratios = [
        ratio_of(results, many, few, measure="peak_tree_bytes", at_most=1.2),
        ratio_of(results, many, few, measure="peak_rss_bytes"),
    ]
    settings = {"rows": rows, "fewer_rows": fewer_rows, "workers": 2, "repeats": repeats}
    publish("ingest_memory", settings, results, ratios, NOTES, output)


def _contestant(name: str, rows: int, folder: Path) -> Contestant:
    written = folder / "dataset"
    data = synthetic_data(rows, written) | {"runner": {"name": "direct", "workers": 2}}
    return Contestant(
        name,
        "benchmarks.tandem_ingest",
        "write",
        {"data": data},
        prepare=remover(written),
        samples_memory=True,
    )


if __name__ == "__main__":
    typer.run(main)
