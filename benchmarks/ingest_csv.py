"""CSV to shards, against Arrow's streaming conversion to Parquet and TFX's CsvExampleGen."""

from pathlib import Path

import typer

from benchmarks.data import (
    LABEL,
    OutputOption,
    RepeatsOption,
    RowsOption,
    ScratchOption,
    remover,
    scratch_folder,
    write_csv,
)
from benchmarks.harness import Contestant, best, run_rounds
from benchmarks.report import publish, ratio_of
from pipelines.environments import find_python

NOTES = [
    "Times exclude the interpreter's start and imports on all sides, and nothing else.",
    "All may use every core. Tandem: data.runner.name=direct with its default workers.",
    "Arrow writes one Parquet file (zstd, like Tandem's shards), with no ids, splits, checksums, "
    "statistics or manifest; the ratio uses the faster of its two block sizes.",
    "CsvExampleGen runs in TFX's LocalDagRunner on Beam's DirectRunner; its time is the whole "
    "pipeline's, of which it is the only component.",
]


def main(
    rows: RowsOption = 2_000_000,
    tfx_rows: RowsOption = 200_000,
    repeats: RepeatsOption = 5,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """CSV to shards, against Arrow's streaming conversion and TFX's CsvExampleGen."""
    with scratch_folder(scratch) as folder:
        typer.echo(f"Writing {rows:,} rows of CSV", err=True)
        big, small = folder / "big.csv", folder / "small" / "small.csv"
        small.parent.mkdir()
        write_csv(big, rows)
        write_csv(small, tfx_rows)
        contestants = [
            _tandem("Tandem", big, folder),
            _arrow("Arrow, default blocks", big, folder, None),
            _arrow("Arrow, 32 MiB blocks", big, folder, 32 << 20),
            _tandem("Tandem, TFX's rows", small, folder),
            _csv_example_gen("CsvExampleGen, 1 worker", small.parent, folder, 1),
            _csv_example_gen("CsvExampleGen, all cores", small.parent, folder, 0),
        ]
        results = run_rounds(contestants, repeats, lambda text: typer.echo(text, err=True))
    arrow = best(results, ["Arrow, default blocks", "Arrow, 32 MiB blocks"])
    tfx = best(results, ["CsvExampleGen, 1 worker", "CsvExampleGen, all cores"])
    ratios = [
        ratio_of(results, "Tandem", arrow, at_least=0.8),
        ratio_of(results, "Tandem, TFX's rows", tfx, at_least=10),
    ]
    settings = {"rows": rows, "tfx_rows": tfx_rows, "columns": 17, "repeats": repeats}
    publish("ingest_csv", settings, results, ratios, NOTES, output)


def _tandem(name: str, csv: Path, folder: Path) -> Contestant:
    written = folder / "tandem"
    data = {"source": "csv", "path": str(csv), "label": LABEL, "output": str(written)}
    return Contestant(
        name,
        "benchmarks.tandem_ingest",
        "write",
        {"data": data | {"runner": {"name": "direct"}}},
        prepare=remover(written),
    )


def _arrow(name: str, csv: Path, folder: Path, block_bytes: int | None) -> Contestant:
    written = folder / "arrow"
    options = {"csv": str(csv), "folder": str(written), "block_bytes": block_bytes}
    module = "benchmarks.rivals.arrow_csv"
    return Contestant(name, module, "convert", options, prepare=remover(written))


def _csv_example_gen(name: str, csv_folder: Path, folder: Path, workers: int) -> Contestant:
    written = folder / "tfx"
    options = {"csv_folder": str(csv_folder), "folder": str(written), "workers": workers}
    return Contestant(
        name,
        "benchmarks.rivals.csv_example_gen",
        "generate",
        options,
        python=find_python("tf"),
        prepare=remover(written),
        repeats=1,
    )


if __name__ == "__main__":
    typer.run(main)
