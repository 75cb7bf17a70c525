"""The rows of all benchmarks: the synthetic click log, 17 columns besides the id."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow.csv as pacsv
import typer

from pipelines.data_config import DataConfig
from pipelines.ingest.sources import ID, open_source

__all__ = [
    "COLUMNS",
    "LABEL",
    "NUMBERS",
    "OutputOption",
    "RepeatsOption",
    "RowsOption",
    "ScratchOption",
    "remover",
    "scratch_folder",
    "synthetic_data",
    "write_csv",
]

LABEL = "click"

RowsOption = Annotated[int, typer.Option(min=1_000, help="Rows.")]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Rounds, each with all contestants.")]
OutputOption = Annotated[Path | None, typer.Option(help="File for the result, as JSON.")]
ScratchOption = Annotated[
    Path | None, typer.Option(help="Folder for the data; by default the system's temporary one.")
]


def synthetic_data(rows: int, output: Path | None = None) -> dict[str, Any]:
    """The ``data`` section of a configuration that asks for that many rows."""
    data: dict[str, Any] = {
        "source": "synthetic",
        "synthetic": {"kind": "tabular", "rows": rows},
        "runner": {"name": "direct"},
    }
    return data | ({"output": str(output)} if output else {})


_FEATURES = open_source(DataConfig.model_validate(synthetic_data(1))).features[1:]
COLUMNS = [feature.name for feature in _FEATURES]
"""Names of the 17 columns."""
NUMBERS = [feature.name for feature in _FEATURES if feature.dtype != "string"]
"""Names of those that are numbers."""


def write_csv(path: Path, rows: int) -> None:
    """Write that many rows, without their ids."""
    source = open_source(DataConfig.model_validate(synthetic_data(rows)))
    schema = source.schema.remove(source.schema.get_field_index(ID))
    with pacsv.CSVWriter(path, schema) as writer:
        for fragment in source.fragments():
            for table in source.read(fragment, lambda line: None):
                writer.write_table(table.drop_columns([ID]))


def remover(folder: Path) -> Callable[[], None]:
    """What removes a folder that may not be there."""
    return lambda: shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A new folder, removed at the end."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tandem-bench-", dir=parent) as folder:
        yield Path(folder)
