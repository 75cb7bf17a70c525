"""Rows per second of Tandem's reader, against a bare Arrow scan and against other readers."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from benchmarks.data import (
    COLUMNS,
    NUMBERS,
    OutputOption,
    RepeatsOption,
    RowsOption,
    ScratchOption,
    remover,
    scratch_folder,
    synthetic_data,
)
from benchmarks.harness import Contestant, Runs, best, find_bench_python, run, run_rounds
from benchmarks.report import Ratio, publish, ratio_of
from pipelines.data_config import DataConfig
from pipelines.environments import find_python

BATCH_SIZE = 1_024
SHUFFLE_BUFFER: int = DataConfig.model_fields["shuffle_buffer"].default
SETS = {"all 17 columns": COLUMNS, "15 numeric columns": NUMBERS}

NOTES = [
    "Rows per second are those of a warm epoch; first epoch seconds, where given, are those of "
    "the one before. Tandem's first epoch verifies all shards and decodes them into its cache.",
    "Times exclude the interpreter's start, imports and the conversion to a rival's format.",
    f"Batches of {BATCH_SIZE:,}, but Arrow's scan also in its default ones; the ratio uses the "
    f"faster. Tandem and tf.data shuffle {SHUFFLE_BUFFER:,} examples at a time "
    "(all of them, where there are fewer); Streaming and LitData as shuffle=True does; Arrow's "
    "scans not at all.",
    "What arrives: from Tandem NumPy arrays, strings as int32 codes; from Arrow's scan record "
    "batches, strings decoded; from Streaming and LitData tensors, and strings as lists; from "
    "tf.data tensors. The rows on numeric columns leave strings out on both sides.",
    "Threads: Tandem 1; Arrow's Parquet scan all cores, its mapped file 1; tf.data AUTOTUNE; "
    "DataLoaders the better of no and two worker processes. cpu seconds leave these out.",
    "Rivals read local, uncompressed files on the same rows; Tandem is measured on those too.",
    "'Arrow, mapped, shuffled' is what the cache would be as one Arrow file instead of arrays.",
]


def main(
    rows: RowsOption = 2_000_000,
    rival_rows: RowsOption = 50_000,
    repeats: RepeatsOption = 5,
    rival_repeats: RepeatsOption = 2,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """Rows per second of Tandem's reader, against Arrow's scan and other readers."""
    results: dict[str, Runs] = {}
    ratios: list[Ratio] = []
    with scratch_folder(scratch) as folder:
        big, small = _ingested(folder / "big", rows), _ingested(folder / "small", rival_rows)
        for label, columns in SETS.items():
            arrow = _arrow_contestants(big, folder, label, columns)
            results |= run_rounds(arrow, repeats, _say)
            ratios += _arrow_ratios(results, label)
        for label, columns in SETS.items():
            rivals = _rivals(small, folder, label, columns)
            results |= run_rounds(rivals, rival_repeats, _say)
            ratios += _rival_ratios(results, label)
    settings = {
        "rows": rows,
        "rival_rows": rival_rows,
        "share_read": 0.8,
        "batch_size": BATCH_SIZE,
        "shuffle_buffer": SHUFFLE_BUFFER,
        "repeats": repeats,
        "rival_repeats": rival_repeats,
    }
    publish("reader", settings, results, ratios, NOTES, output)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _ingested(folder: Path, rows: int) -> Path:
    options = {"data": synthetic_data(rows, folder)}
    run(Contestant("Tandem's ingestion", "benchmarks.tandem_ingest", "write", options))
    return folder


def _shards(dataset: Path) -> list[str]:
    return [str(path) for path in sorted((dataset / "split=train").glob("*.parquet"))]


def _tandem(name: str, dataset: Path, columns: list[str], epochs: int) -> Contestant:
    options = {
        "dataset": str(dataset),
        "columns": columns,
        "batch_size": BATCH_SIZE,
        "shuffle_buffer": SHUFFLE_BUFFER,
        "epochs": epochs,
    }
    cache = remover(dataset / ".cache")
    return Contestant(name, "benchmarks.tandem_reader", "read", options, prepare=cache)


def _arrow_contestants(
    dataset: Path, folder: Path, label: str, columns: list[str]
) -> list[Contestant]:
    module, mapped = "benchmarks.rivals.arrow_scan", {"folder": str(folder / "arrow")}
    parquet = {"shards": _shards(dataset)}
    given = {"columns": columns, "batch_size": BATCH_SIZE, "epochs": 3}
    written = parquet | mapped | {"columns": columns}
    run(Contestant("Arrow, conversion", module, "prepare", written))
    return [
        _tandem(f"Tandem, {label}", dataset, columns, epochs=3),
        *(
            Contestant(name, module, "scan_parquet", parquet | given | {"batch_size": size})
            for size, name in _scans(label).items()
        ),
        Contestant(f"Arrow, mapped, in order, {label}", module, "scan_mapped", mapped | given),
        Contestant(f"Arrow, mapped, shuffled, {label}", module, "take_mapped", mapped | given),
    ]


def _scans(label: str) -> dict[int, str]:
    """Batch size -> name: Tandem's, and Arrow's own default, which it is quicker with."""
    return {size: f"Arrow scan, batches of {size:,}, {label}" for size in (BATCH_SIZE, 131_072)}


def _arrow_ratios(results: Mapping[str, Runs], label: str) -> list[Ratio]:
    ours = f"Tandem, {label}"
    return [
        ratio_of(results, ours, best(results, list(_scans(label).values())), at_least=0.8),
        ratio_of(results, ours, f"Arrow, mapped, in order, {label}"),
        ratio_of(results, ours, f"Arrow, mapped, shuffled, {label}"),
    ]


def _rivals(dataset: Path, folder: Path, label: str, columns: list[str]) -> list[Contestant]:
    bench, tensorflow = find_bench_python(), find_python("tf")
    shards = _shards(dataset)
    contestants = [_tandem(_on_rival_rows("Tandem", label), dataset, columns, epochs=20)]
    for name, module, python in (
        ("Streaming", "mosaic", bench),
        ("LitData", "litdata", bench),
        ("tf.data", "tfdata", tensorflow),
    ):
        converted = folder / module
        shutil.rmtree(converted, ignore_errors=True)
        where = {"folder": str(converted)}
        rows = {"shards": shards, "columns": columns}
        module = f"benchmarks.rivals.{module}"
        _say(f"converting for {name}, {label}")
        run(Contestant(f"{name}, conversion", module, "prepare", where | rows, python))
        read: dict[str, Any] = where | {"batch_size": BATCH_SIZE}
        if name == "tf.data":
            read |= rows | {"shuffle_buffer": SHUFFLE_BUFFER}
            contestants.append(
                Contestant(_on_rival_rows(name, label), module, "read", read, python)
            )
            continue
        contestants += [
            Contestant(workers_name, module, "read", read | {"workers": workers}, python)
            for workers, workers_name in _with_workers(name, label).items()
        ]
    return contestants


def _rival_ratios(results: Mapping[str, Runs], label: str) -> list[Ratio]:
    names = [best(results, list(_with_workers(each, label).values())) for each in _LOADERS]
    names.append(_on_rival_rows("tf.data", label))
    ours = _on_rival_rows("Tandem", label)
    return [ratio_of(results, ours, name, at_least=1) for name in names]


_LOADERS = ("Streaming", "LitData")


def _with_workers(name: str, label: str) -> dict[int, str]:
    return {workers: _on_rival_rows(f"{name}, {workers} workers", label) for workers in (0, 2)}


def _on_rival_rows(name: str, label: str) -> str:
    return f"{name}, {label}, rivals' rows"


if __name__ == "__main__":
    typer.run(main)
