"""Every command of ``tandem``: options here, the work in the modules that they call.

Heavy imports wait until a command runs, so that ``--help`` answers at once.
"""

import os
from typing import Annotated

import typer

from pipelines.cli.commands.cluster import submit
from pipelines.cli.commands.machine import doctor
from pipelines.cli.commands.measuring import ingest, parity, pipeline, run, study, train
from pipelines.cli.commands.reading import compare, ledger, predict, ui
from pipelines.stage import DEBUG_VARIABLE

__all__ = ["app"]

app = typer.Typer(
    help="Distributed training, the TensorFlow way and the PyTorch way, measured side by side.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


# In the order of `--help`: as a study goes, then what stands beside it.
for _command in (
    *(run, ingest, pipeline, train, parity, study),
    *(compare, ledger, predict, submit, ui, doctor),
):
    app.command()(_command)
