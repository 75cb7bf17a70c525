"""The options that commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DEFAULT_CONFIG",
    "BandwidthOption",
    "ConfigOption",
    "FrameworkArgument",
    "FrameworkName",
    "HostsOption",
    "JsonOption",
    "PricesOption",
    "SetOption",
    "StrategyOption",
    "WorkersOption",
]

DEFAULT_CONFIG = Path("configs/quickstart.yaml")


class FrameworkName(StrEnum):
    """A framework as it is named on the command line."""

    tf = "tf"
    torch = "torch"


ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The study's YAML file.", show_default=True)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Override a field; repeatable."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.")
]
PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="What machines and engineers cost; by default configs/prices.yaml.",
    ),
]
FrameworkArgument = Annotated[FrameworkName, typer.Argument(help="Which framework.")]
WorkersOption = Annotated[int, typer.Option(min=1, help="Workers to train on.")]
StrategyOption = Annotated[
    str | None, typer.Option(help="Distribution strategy; by default the config's.")
]
HostsOption = Annotated[
    int | None, typer.Option(min=1, help="Emulated hosts to share the workers; needs root.")
]
BandwidthOption = Annotated[
    str | None, typer.Option(help="Of each emulated host's link, such as 1gbit.")
]
