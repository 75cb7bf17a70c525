"""Commands that make something to be compared: datasets, runs, proofs, studies."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.loading import (
    given_prices,
    given_settings,
    load,
    load_for,
    network_settings,
    refuse_other_config,
)
from pipelines.cli.options import (
    DEFAULT_CONFIG,
    BandwidthOption,
    ConfigOption,
    FrameworkArgument,
    HostsOption,
    JsonOption,
    PricesOption,
    SetOption,
    StrategyOption,
    WorkersOption,
)

__all__ = ["PlaceName", "ingest", "parity", "pipeline", "run", "study", "train"]


class PlaceName(StrEnum):
    """Where a training run's workers are started."""

    here = "here"
    kubernetes = "kubernetes"


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    prices: PricesOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything once: ingest, both pipelines, parity, the study, the ledger, the comparison."""
    from pipelines.cli import actions
    from pipelines.cli.narrator import Narrator

    report = actions.run_everything(load(config, overrides), Narrator(), given_prices(prices))
    if as_json:
        typer.echo(report.model_dump_json(indent=2))


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
    dataset = actions.ingest(load(config, asked), Narrator(), force=force)
    if as_json:
        typer.echo(dataset.manifest.model_dump_json(indent=2))


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

    loaded = load_for(framework, workers, strategy, config, overrides)
    result = actions.pipeline(loaded, framework.value, Narrator(), workers=workers)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))


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
        loaded = load_for(framework, workers or 1, strategy, config, overrides)
        metrics = train_on_kubernetes(
            loaded, framework.value, workers or 1, Narrator(), follow, max_restarts
        )
        if as_json:
            typer.echo(json.dumps(metrics, indent=2))
        return
    asked = [*network_settings(hosts, bandwidth), *(overrides or [])]
    if resume is not None:
        from pipelines.cli.resume import config_to_resume

        refuse_other_config(config, resume)
        if strategy is not None:
            asked.append(f"{framework.value}.strategy={strategy}")
        loaded, workers = config_to_resume(resume, framework.value, workers, asked)
    else:
        workers = workers or 1
        loaded = load_for(framework, workers, strategy, config, asked)
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
    verdict = actions.parity(load(config, [*(overrides or []), *given_settings(given)]), Narrator())
    if as_json:
        typer.echo(verdict.model_dump_json(indent=2))
    require_passed(verdict)


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

    asked = [*network_settings(hosts, bandwidth), *(overrides or [])]
    if resume is not None:
        refuse_other_config(config, resume)
        loaded, study_id = StudyFolder.to_resume(resume, asked)
    else:
        loaded = load(config, asked)
        study_id = StudyFolder.new_id(loaded)
    run_ids = actions.study(loaded, study_id, Narrator())
    if as_json:
        typer.echo(json.dumps({"study_id": study_id, "mlflow_run_ids": run_ids}, indent=2))


def _refuse_local_options(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            from pipelines.errors import InputError

            raise InputError(f"--{name} {value}: is this machine's; leave out --on kubernetes")
