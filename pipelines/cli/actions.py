"""What the commands do, told by a narrator; ``run_everything`` is all of them in a row."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.cell import Cell
from pipelines.cli.narrator import Narrator
from pipelines.config import Config
from pipelines.dag import PipelineResult
from pipelines.environments import find_python
from pipelines.errors import DeniedError, PreemptedError
from pipelines.hardware import available_cores
from pipelines.ingest import Dataset
from pipelines.ingest import ingest as ingest_data
from pipelines.ingest.manifest import MANIFEST_NAME
from pipelines.strategies import (
    FRAMEWORK_TITLES,
    FRAMEWORKS,
    Framework,
)
from pipelines.workloads import get_family, get_thresholds, get_workload

if TYPE_CHECKING:
    from pipelines.compare import Report
    from pipelines.ledger.against import Difference
    from pipelines.ledger.model import Ledger
    from pipelines.ledger.record import Network
    from pipelines.parity.model import Parity
    from pipelines.prices import Prices

__all__ = [
    "compare",
    "difference",
    "ingest",
    "ledger",
    "parity",
    "pipeline",
    "run_everything",
    "study",
    "train",
]

_MOST_TOLD = 10


def run_everything(config: Config, narrator: Narrator, prices: "Prices | None" = None) -> "Report":
    """Ingest, both pipelines, a short proof of parity, the study, the ledger, the comparison.

    Each pipeline runs once more where its first run was not answered from the cache already, which
    tells what a run costs in which nothing is left to do.
    """
    from pipelines.ledger.images import read_images
    from pipelines.study_folder import StudyFolder

    started = time.perf_counter()
    _check(config, FRAMEWORKS)
    read_images()  # the ledger's, which comes last: unreadable, it is told now
    study_id = StudyFolder.new_id(config)
    get_workload(config, ingest(config, narrator).manifest)
    for framework in FRAMEWORKS:
        first = pipeline(config, framework, narrator, study_id)
        if len(first.cached) < len(first.components):
            pipeline(config, framework, narrator, study_id)
    study(config, study_id, narrator)
    ledger(config, narrator, study_id, "kept")
    report = compare(config, narrator, prices=prices)
    narrator.say(f"Done in {time.perf_counter() - started:.0f} s.")
    return report


def ingest(config: Config, narrator: Narrator, *, force: bool = False) -> Dataset:
    """Make the dataset, or reuse it."""
    with narrator.task("ingest") as task:

        def on_progress(done: int, total: int) -> None:
            task.update(f"{done}/{total} parts", done, total)

        dataset, reused = ingest_data(config, force=force, on_progress=on_progress)
        manifest = dataset.manifest
        task.outcome = (
            f"{manifest.source['name']}, {manifest.rows('train'):,} + {manifest.rows('eval'):,} "
            f"examples, fingerprint {manifest.fingerprint[:12]}{', reused' if reused else ''}"
        )
    _tell("anomaly", manifest.anomalies, len(manifest.anomalies), dataset, narrator)
    _tell("left out", manifest.skipped, manifest.skipped_count, dataset, narrator)
    return dataset


def pipeline(
    config: Config,
    framework: Framework,
    narrator: Narrator,
    study_id: str = "",
    workers: int = 1,
) -> PipelineResult:
    """Run a framework's DAG, its training step on ``workers`` workers."""
    _check(config, [framework])
    dataset = _dataset(config)
    with narrator.task(f"pipeline {framework}") as task:
        from pipelines.pipeline_run import run_pipeline
        from pipelines.tracking import new_study_id

        task.update(f"starting {FRAMEWORK_TITLES[framework]}")

        def on_component(name: str, number: int, components: int) -> None:
            task.update(f"{name} ({number}/{components})", number - 1, components)

        result, _ = run_pipeline(
            config, framework, dataset, study_id or new_study_id(), on_component, workers
        )
        reused = f", {len(result.cached)} of {len(result.components)} components cached"
        verdict = "blessed and pushed" if result.blessed else "not blessed, not pushed"
        task.outcome = (
            f"{verdict}, {_judged(config, result.metrics)}{reused if result.cached else ''}"
        )
    return result


def train(
    config: Config,
    framework: Framework,
    workers: int,
    narrator: Narrator,
    *,
    follow: bool = False,
    resume: Path | None = None,
    max_restarts: int = 0,
) -> dict[str, float]:
    """One training run outside any study; with ``follow`` its workers' output is shown.

    With ``resume`` it goes on with the run of that folder. If it is asked to end, it says how to go
    on, and has no metrics.
    """
    _check(config, [framework])
    dataset = _dataset(config)
    with narrator.task(f"train {framework}") as task:
        from pipelines import tracking
        from pipelines.training_run import Listener, begin_run, resume_run

        def on_progress(cell: Cell, step: int, steps: int) -> None:
            task.update(f"{cell.name}, step {step}/{steps}" if step else "starting", step, steps)

        def on_line(name: str, line: str) -> None:
            if follow:
                narrator.say(f"[{name}] {line}")

        listener = Listener(on_progress, on_line, narrator.say)
        try:
            if resume is not None:
                run_id, metrics = resume_run(
                    config, dataset, resume, workers, listener, max_restarts
                )
            else:
                tracking.prepare_store(config)
                study_id = tracking.new_study_id()
                cell = Cell(framework, config.strategy(framework), workers)
                folder = config.output / "runs" / study_id
                run_id, metrics = begin_run(
                    config, dataset, cell, "train", study_id, folder, listener, max_restarts
                )
        except PreemptedError as asked:
            task.outcome = str(asked)
            return {}
        speed = metrics.get("examples_per_second")
        told = [] if speed is None else [f"{speed:,.0f} examples/s"]
        task.outcome = ", ".join([*told, _judged(config, metrics), f"run {run_id}"])
    return metrics


def parity(config: Config, narrator: Narrator, study_id: str = "") -> "Parity":
    """Prove that both frameworks compute the same, print the verdict, and write its page."""
    _check(config, FRAMEWORKS)
    dataset = _dataset(config)
    with narrator.task("parity") as task:
        from pipelines.parity.members import check_workers
        from pipelines.parity.prove import prove
        from pipelines.parity.record import keep, parity_params
        from pipelines.parity.software import describe_frameworks
        from pipelines.parity.terminal import print_parity
        from pipelines.tracking import new_study_id

        check_workers(config)
        task.update("asking for versions")
        params = parity_params(config, dataset.manifest, describe_frameworks(config))

        def on_progress(name: str, number: int, members: int, step: int, steps: int) -> None:
            state = f"step {step}/{steps}" if step else "starting"
            task.update(f"{number}/{members} {name}, {state}", number - 1 + step / steps, members)

        verdict = prove(config, dataset, params, on_progress)
        verdict, page = keep(config, verdict, study_id or new_study_id())
        task.outcome, task.refuted = verdict.summary, not verdict.passed
    print_parity(verdict, Console(stderr=True))
    narrator.say("")
    narrator.say(f"Parity: {page}")
    return verdict


def _ensure_parity(config: Config, dataset: Dataset, study_id: str, narrator: Narrator) -> None:
    """A short proof of every two strategies that will stand side by side.

    Raises:
        ComparisonRefusedError: if the frameworks differ, or are not builds of one class.
    """
    from pipelines.parity.members import strategy_pairs
    from pipelines.parity.software import check_builds, describe_frameworks

    check_builds(describe_frameworks(config))
    for pair in strategy_pairs(config):
        _ensure_parity_of(pair, dataset, study_id, narrator)


def _ensure_parity_of(config: Config, dataset: Dataset, study_id: str, narrator: Narrator) -> None:
    """A short proof, unless the store has one for the same inputs and code."""
    from pipelines import tracking
    from pipelines.parity.members import abridged
    from pipelines.parity.prove import require_passed
    from pipelines.parity.record import find_passed, parity_params
    from pipelines.parity.software import describe_frameworks

    short = abridged(config)
    tracking.prepare_store(config)
    params = parity_params(short, dataset.manifest, describe_frameworks(short))
    found = find_passed(tracking.read_runs(config), params)
    if found is None:
        require_passed(parity(short, narrator, study_id))
        return
    with narrator.task("parity") as task:
        task.outcome = f"passed before on the same inputs and code, reused: run {found.run_id}"


def study(config: Config, study_id: str, narrator: Narrator) -> list[str]:
    """Measure what is not yet measured of the matrix; returns the ids of the runs.

    Before the first cell, both frameworks must have been shown to compute the same.
    """
    _check(config, FRAMEWORKS)
    dataset = _dataset(config)
    _ensure_parity(config, dataset, study_id, narrator)
    needed, cores = max(config.study.workers) * config.study.threads_per_worker, available_cores()
    if needed > len(cores):
        narrator.say(
            f"note: {needed} threads will share {len(cores)} cores in the largest cells, "
            "whose scaling then shows the machine, not the frameworks"
        )
    from pipelines.cli.study_view import StudyView
    from pipelines.study import run_study
    from pipelines.study_folder import StudyFolder

    view = StudyView(narrator)
    try:
        with narrator.task("study", view) as task:
            run_ids = run_study(config, dataset, study_id, view.listener(task))
            task.outcome = f"{len(run_ids)} cells, {config.study.repeats} of each kind"
    except KeyboardInterrupt:
        narrator.say(f"go on with `tandem study --resume {StudyFolder.path(config, study_id)}`")
        raise
    return run_ids


def ledger(
    config: Config,
    narrator: Narrator,
    study_id: str = "",
    network: "Network" = "ask",
) -> "dict[Framework, Ledger]":
    """What keeping each side costs: measured, and tracked unless it is already."""
    _check(config, FRAMEWORKS)
    with narrator.task("ledger") as task:
        from pipelines.ledger.record import keep_ledger
        from pipelines.tracking import new_study_id

        ledgers = keep_ledger(config, study_id or new_study_id(), network, task.update)
        task.outcome = ", ".join(
            f"{FRAMEWORK_TITLES[framework]} {each.metrics['total_dependencies']:.0f} packages and "
            f"{each.metrics['code_lines']:,.0f} lines"
            for framework, each in ledgers.items()
        )
    return ledgers


def difference(
    config: Config, ledgers: "Mapping[Framework, Ledger]", revision: str
) -> "Difference":
    """How the ledgers differ from what they were at a revision of git's."""
    from pipelines import tracking
    from pipelines.ledger.against import difference_to

    return difference_to(revision, ledgers, tracking.read_runs(config))


def compare(
    config: Config,
    narrator: Narrator,
    names: Sequence[str] = (),
    prices: "Prices | None" = None,
) -> "Report":
    """Compare studies, print what was found, and write the report; with ``prices``, what it costs.

    ``names`` are those of studies, each followed by ``/ID`` or else meaning its latest execution;
    without any it is the latest of the config's. The conclusions of one study go to its store too,
    unless this user may only read there.
    """
    with narrator.task("compare") as task:
        from pipelines import tracking
        from pipelines.compare import (
            appraise,
            build_report,
            log_chart_view,
            log_costs,
            log_summaries,
            print_report,
            write_report,
        )
        from pipelines.compare.collect import latest_study
        from pipelines.ledger.record import read_ledger
        from pipelines.parity.record import read
        from pipelines.ui_address import run_address

        asked = [name.partition("/") for name in names or [config.name]]
        found = {}
        for name in dict.fromkeys(name for name, _, _ in asked):
            task.update(f"reading {name}")
            found[name] = tracking.read_runs(config.model_copy(update={"name": name}))
        study_ids = [study_id or latest_study(found[name]) for name, _, study_id in asked]
        records = [run for runs in found.values() for run in runs]
        report = build_report(
            records,
            study_ids,
            partial(read, config),
            partial(run_address, config),
            partial(read_ledger, config),
        )
        report = appraise(report, records, config, prices)
        denied = False
        if len(study_ids) == 1:
            own = config.model_copy(update={"name": asked[0][0]})
            try:
                log_summaries(own, report, records)
                log_costs(own, report, records)
                log_chart_view(own, report)
            except DeniedError:
                denied = True
        html, data, comment = write_report(report, config.output)
        task.outcome = f"{html}, {data}, {comment}"
    print_report(report, Console(stderr=True))
    narrator.say("")
    if denied:
        narrator.say(
            f"note: this user may only read at {config.shown_tracking_uri}, so MLflow has no "
            "summary of this comparison, and its charts stay as they were"
        )
    narrator.say(f"Report: {html} (figures: {data})")
    narrator.say("`make ui` opens the charts in MLflow.")
    return report


def _judged(config: Config, metrics: Mapping[str, float]) -> str:
    """The metrics that the workload is held to."""
    names = get_family(config.workload).default_thresholds
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in names)


def _tell(what: str, lines: list[str], count: int, dataset: Dataset, narrator: Narrator) -> None:
    for line in lines[:_MOST_TOLD]:
        narrator.say(f"{what}: {line}")
    if count > _MOST_TOLD:
        narrator.say(f"{what}: {count - _MOST_TOLD:,} more, in {dataset.folder / MANIFEST_NAME}")


def _dataset(config: Config) -> Dataset:
    """The dataset that the workload is to be trained on, made if it is not there."""
    dataset, _ = ingest_data(config)
    get_workload(config, dataset.manifest)
    return dataset


def _check(config: Config, frameworks: "list[Framework] | tuple[Framework, ...]") -> None:
    """Find what is missing before any work begins."""
    get_thresholds(config.workload)
    for framework in frameworks:
        find_python(framework)
