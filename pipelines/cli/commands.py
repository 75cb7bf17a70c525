"""Every command of ``tandem``: options here, the work in the modules it calls.

Heavy imports wait until a command runs, so that ``--help`` answers at once.
"""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import ConfigOption, JsonOption, SetOption
from pipelines.stage import DEBUG_VARIABLE
from pipelines.ui_address import DEFAULT_PORT

__all__ = ["app"]

app = typer.Typer(
    help="Distributed training, the TensorFlow way and the PyTorch way, measured side by side.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

DEFAULT_CONFIG = Path("configs/quickstart.yaml")


class FrameworkName(StrEnum):
    """A framework as it is named on the command line."""

    tf = "tf"
    torch = "torch"


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


class PlaceName(StrEnum):
    """Where a training run's workers are started."""

    here = "here"
    kubernetes = "kubernetes"


class PipelineName(StrEnum):
    """A pipeline that can be submitted."""

    study = "study"
    torch = "torch"
    tf = "tf"
    ingest = "ingest"


StudiesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--study",
        metavar="NAME[/ID]",
        help="MLflow experiment, by default the config's name, and which execution of it, by "
        "default the latest; repeatable.",
    ),
]
PricesOption = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="What machines and engineers cost; by default configs/prices.yaml.",
    ),
]


@app.callback()
def _globals(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    prices: PricesOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything once: ingest, both pipelines, parity, the study, the ledger, the comparison."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    report = actions.run_everything(_load(config, overrides), Narrator(), _prices(prices))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))


@app.command()
def ingest(
    config: ConfigOption = DEFAULT_CONFIG,
    runner: Annotated[
        str | None,
        typer.Option(help="Where it runs: direct, dask, flink, spark, dataflow."),
    ] = None,
    overrides: SetOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write the dataset anew.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Raw data to Parquet shards and a manifest with a fingerprint."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    asked = list(overrides or [])
    if runner is not None:
        asked.append(f"data.runner.name={runner}")
    dataset = actions.ingest(_load(config, asked), Narrator(), force=force)
    if as_json:
        typer.echo(dataset.manifest.model_dump_json(indent=2))


@app.command()
def pipeline(
    framework: FrameworkArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    workers: WorkersOption = 1,
    strategy: StrategyOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """A framework's whole DAG on this machine: validate, transform, train, evaluate, push."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    loaded = _load_for(framework, workers, strategy, config, overrides)
    result = actions.pipeline(loaded, framework.value, Narrator(), workers=workers)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))


@app.command()
def train(
    framework: FrameworkArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers to train on; 1, or the resumed run's.")
    ] = None,
    strategy: StrategyOption = None,
    hosts: HostsOption = None,
    bandwidth: BandwidthOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Go on with the run of this folder, from its newest checkpoint and by its config.",
        ),
    ] = None,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="How often to start all workers again if one dies.")
    ] = 0,
    on: Annotated[
        PlaceName, typer.Option(help="On this machine, or as a training job of the cluster.")
    ] = PlaceName.here,
    overrides: SetOption = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Show what the workers print, as they do.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """One distributed training run."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    if on is PlaceName.kubernetes:
        from pipelines.cli.submit import train_on_kubernetes

        _refuse_local_options(resume=resume, hosts=hosts, bandwidth=bandwidth)
        loaded = _load_for(framework, workers or 1, strategy, config, overrides)
        metrics = train_on_kubernetes(
            loaded, framework.value, workers or 1, Narrator(), follow, max_restarts
        )
        if as_json:
            typer.echo(json.dumps(metrics, indent=2))
        return
    asked = [*_network(hosts, bandwidth), *(overrides or [])]
    if resume is not None:
        from pipelines.cli.resume import config_to_resume

        _refuse_other_config(config, resume)
        if strategy is not None:
            asked.append(f"{framework.value}.strategy={strategy}")
        loaded, workers = config_to_resume(resume, framework.value, workers, asked)
    else:
        workers = workers or 1
        loaded = _load_for(framework, workers, strategy, config, asked)
    metrics = actions.train(
        loaded,
        framework.value,
        workers,
        Narrator(),
        follow=follow,
        resume=resume,
        max_restarts=max_restarts,
    )
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))


@app.command()
def parity(
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[
        str | None, typer.Option(help="Worker counts, such as 1,2,4; by default the config's.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of each run; by default the config's.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float64 is the proof; by default the config's.")
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The proof that both frameworks compute the same, from one to several workers."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator
    from pipelines.parity.prove import require_passed

    given = {
        "parity.workers": None if workers is None else f"[{workers}]",
        "parity.steps": steps,
        "training.precision": precision,
    }
    asked = [f"{field}={value}" for field, value in given.items() if value is not None]
    verdict = actions.parity(_load(config, [*(overrides or []), *asked]), Narrator())
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    require_passed(verdict)


@app.command()
def study(
    config: ConfigOption = DEFAULT_CONFIG,
    hosts: HostsOption = None,
    bandwidth: BandwidthOption = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Go on with the study of this folder, by its own config.",
        ),
    ] = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """The matrix: frameworks x strategies x workers x repeats, each cell in fresh processes."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator
    from pipelines.study_folder import StudyFolder
    from pipelines.tracking import new_study_id

    asked = [*_network(hosts, bandwidth), *(overrides or [])]
    if resume is not None:
        _refuse_other_config(config, resume)
        loaded, study_id = StudyFolder.to_resume(resume, asked)
    else:
        loaded, study_id = _load(config, asked), new_study_id()
    run_ids = actions.study(loaded, study_id, Narrator())
    if as_json:
        typer.echo(json.dumps({"study_id": study_id, "mlflow_run_ids": run_ids}, indent=2))


@app.command()
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

    loaded = _load(config, overrides)
    report = actions.compare(loaded, Narrator(), studies or (), _prices(prices))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))


@app.command()
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

    loaded = _load(config, overrides)
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


@app.command()
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
        _load(config, overrides), Narrator(), workers, network, latency, study_name
    )
    if as_json:
        typer.echo(prediction.model_dump_json(indent=2))


@app.command()
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

    loaded = _load(config, overrides)
    asked = dict.fromkeys(pipelines or [PipelineName.study])
    names: list[Any] = [each.value for each in asked]
    said: object
    if dry_run:
        said = action.write_dry_run(loaded, Narrator(), names, output, workers)
    else:
        said = action.submit(loaded, Narrator(), names, host, workers, version, token_file, wait)
    if as_json:
        typer.echo(json.dumps(said, indent=2))


@app.command()
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

    serve_ui(_load(config, overrides), port, browser)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What this machine allows, and how to mend what is missing."""
    from pipelines.cli.doctor import examine, print_findings

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        print_findings(findings)
    if any(finding.needed and not finding.found for finding in findings):
        raise typer.Exit(1)


def _load_for(
    framework: FrameworkName,
    workers: int,
    strategy: str | None,
    path: Path,
    overrides: list[str] | None,
) -> Any:
    """The configuration for one run of one framework at one worker count."""
    asked = [f"study.workers=[{workers}]", *(overrides or [])]
    if strategy is not None:
        asked.append(f"{framework.value}.strategy={strategy}")
    return _load(path, asked)


def _refuse_other_config(config: Path, resume: Path) -> None:
    if config != DEFAULT_CONFIG:
        from pipelines.errors import InputError

        raise InputError(
            f"--config {config}: what {resume} holds goes on by its own; leave it out, and use "
            "--set for what may change"
        )


def _refuse_local_options(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            from pipelines.errors import InputError

            raise InputError(f"--{name} {value}: is this machine's; leave out --on kubernetes")


def _network(hosts: int | None, bandwidth: str | None) -> list[str]:
    given = {"network.hosts": hosts, "network.bandwidth": bandwidth}
    return [f"{field}={value}" for field, value in given.items() if value is not None]


def _load(path: Path, overrides: list[str] | None) -> Any:
    from pipelines.config import load_config

    return load_config(path, overrides)


def _prices(path: Path | None) -> Any:
    """An installed copy of the program may come without the shipped file."""
    from pipelines.prices import DEFAULT_PRICES, load_prices

    if path is None and not DEFAULT_PRICES.exists():
        return None
    return load_prices(path or DEFAULT_PRICES)
