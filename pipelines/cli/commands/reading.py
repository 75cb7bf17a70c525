"""Commands that read what was measured: comparison, ledger, prediction, MLflow's UI."""

import json
from typing import Annotated

import typer

from pipelines.cli.loading import given_prices, load
from pipelines.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    PricesOption,
    SetOption,
)
from pipelines.ui_address import DEFAULT_PORT

__all__ = ["compare", "ledger", "predict", "ui"]

StudiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--study",
        metavar="NAME[/ID]",
        help="MLflow experiment, by default the config's name, and which execution of it, by "
        "default the latest; repeatable.",
    ),
]


def compare(
    config: ConfigOption = DEFAULT_CONFIG,
    studies: StudiesOption = None,
    prices: PricesOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """From tracked runs to statistics, tables, plots, report.html and report.json."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    loaded = load(config, overrides)
    report = actions.compare(loaded, Narrator(), studies or (), given_prices(prices))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))


def ledger(
    config: ConfigOption = DEFAULT_CONFIG,
    against: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Show the difference to this revision of git's."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            help="Do not ask the network: take what it said before, if packages are the same.",
        ),
    ] = False,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What keeping each side costs: its packages, their state, and the code of its twin."""
    from rich.console import Console

    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator
    from pipelines.ledger.terminal import print_difference, print_ledger

    loaded = load(config, overrides)
    if against is not None:
        from pipelines.ledger.commit import find_commit

        find_commit(against)  # before a minute is spent
    ledgers = actions.ledger(loaded, Narrator(), network="kept" if offline else "ask")
    if against is not None:
        difference = actions.difference(loaded, ledgers, against)
        print_difference(difference, Console(stderr=True))
        if as_json:
            typer.echo(difference.model_dump_json(indent=2))
        return
    print_ledger(ledgers, Console(stderr=True))
    if as_json:
        told = {framework: each.model_dump() for framework, each in ledgers.items()}
        typer.echo(json.dumps(told, indent=2))


def predict(
    workers: Annotated[str, typer.Option(help="Worker counts, such as 8,64,256,1024.")],
    network: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Of each worker's link, such as 100gbit or 100gbit,2us."),
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="What that link adds, such as 2us.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    study_name: Annotated[
        str | None,
        typer.Option("--study", help="MLflow experiment; by default the config's name."),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """From a study's measurements to larger worker counts: a prediction, with an interval."""
    from pipelines.cli import predict as action
    from pipelines.cli.narrator import Narrator

    prediction = action.predict(
        load(config, overrides), Narrator(), workers, network, latency, study_name
    )
    if as_json:
        typer.echo(prediction.model_dump_json(indent=2))


def ui(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port on this machine.")
    ] = DEFAULT_PORT,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """The MLflow UI on the study's runs."""
    from pipelines.cli.ui import serve_ui

    serve_ui(load(config, overrides), port, browser)
