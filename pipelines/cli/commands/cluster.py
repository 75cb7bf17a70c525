"""Commands that hand work to a cluster."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.loading import load
from pipelines.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, SetOption

__all__ = ["PipelineName", "submit"]


class PipelineName(StrEnum):
    """A pipeline that can be submitted."""

    study = "study"
    torch = "torch"
    tf = "tf"
    ingest = "ingest"


def submit(
    config: ConfigOption = DEFAULT_CONFIG,
    host: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of Kubeflow Pipelines; by default cluster.host."),
    ] = None,
    pipelines: Annotated[
        list[PipelineName] | None,
        typer.Option("--pipeline", help="Which to submit; repeatable; by default the study."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers of the torch and tf pipelines' training step.")
    ] = 1,
    version: Annotated[
        str | None, typer.Option(help="Name of the pipeline's version; by default the time.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token; by default the environment's.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write what would be sent to --output, and end.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="New folder for --dry-run.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run to its end, and fail if it fails.")
    ] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """To a cluster: the study, or a framework's DAG, as a run of Kubeflow Pipelines."""
    from pipelines.cli import submit as action
    from pipelines.cli.narrator import Narrator

    loaded = load(config, overrides)
    asked = dict.fromkeys(pipelines or [PipelineName.study])
    names: list[Any] = [each.value for each in asked]
    said: object
    if dry_run:
        said = action.write_dry_run(loaded, Narrator(), names, output, workers)
    else:
        said = action.submit(loaded, Narrator(), names, host, workers, version, token_file, wait)
    if as_json:
        typer.echo(json.dumps(said, indent=2))
