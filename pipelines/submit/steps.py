"""What the steps of the study pipeline do, each in a process or pod of its own.

On a cluster the training in them is a job's; anywhere else it is processes of this machine.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from pipelines import tracking
from pipelines.cell import Cell, cell_config
from pipelines.cluster_config import ClusterConfig
from pipelines.config import Config, parse_config
from pipelines.errors import DivergedError, PreemptedError, UnansweredError, WorkError
from pipelines.ingest import Dataset
from pipelines.ingest import ingest as ingest_data
from pipelines.preemption import Preemption
from pipelines.runs import STUDY_TAG
from pipelines.strategies import Framework
from pipelines.study_folder import StudyFolder
from pipelines.training_run import Listener, begin_run
from pipelines.workloads import get_workload

__all__ = ["begin_study", "compare_study", "describe_software", "prove_parity", "train_cell"]


def begin_study(settings: str) -> str:
    """Make the dataset, or find it as it was made, and the experiment; returns the study's id.

    ``settings`` is a configuration as JSON, here and in the other steps.
    """
    config = _parse(settings)
    dataset, reused = ingest_data(config)
    get_workload(config, dataset.manifest)
    manifest = dataset.manifest
    print(
        f"{manifest.source['name']}, {manifest.rows('train'):,} + {manifest.rows('eval'):,} "
        f"examples, fingerprint {manifest.fingerprint}{', reused' if reused else ''}"
    )
    tracking.prepare_store(config)
    study_id = StudyFolder.new_id(config)
    StudyFolder.begin(config, study_id)
    return study_id


def describe_software(settings: str, framework: str) -> str:
    """What a framework says of itself, as JSON; asked in its own image."""
    from pipelines.parity.software import describe_framework

    known: Framework = "tf" if framework == "tf" else "torch"
    return json.dumps(describe_framework(_parse(settings), known))


def prove_parity(settings: str, study_id: str, software: Mapping[Framework, str]) -> None:
    """A short proof of every two strategies, unless one on the same inputs and code is known.

    ``software`` is what ``describe_software`` said of each framework, as JSON.

    Raises:
        ComparisonRefusedError: if the frameworks differ, or are not builds of one class.
    """
    from pipelines.parity.members import abridged, strategy_pairs
    from pipelines.parity.prove import prove, require_passed
    from pipelines.parity.record import find_passed, keep, parity_params
    from pipelines.parity.software import check_builds

    config = _parse(settings)
    said = {framework: json.loads(text) for framework, text in software.items()}
    check_builds(said)
    dataset = Dataset.open(config.dataset_dir)
    # Two submissions of one configuration share its folder, and jobs that write to the same one
    # count as attempts at the same work.
    runs = StudyFolder.path(config, study_id) / "parity"
    for pair in strategy_pairs(config):
        short = abridged(pair)
        params = parity_params(short, dataset.manifest, said)
        if found := find_passed(tracking.read_runs(config), params):
            print(f"passed before on the same inputs and code: run {found.run_id}")
            continue
        verdict = prove(short, dataset, params, _tell_progress, runs=runs)
        verdict, _ = keep(short, verdict, study_id)
        print(verdict.summary)
        require_passed(verdict)


def train_cell(settings: str, study_id: str, cell: Cell) -> str:
    """Measure a cell, unless this study has; returns the id of its run.

    A cell that was preempted is begun again as a run of its own, up to ``cluster.max_restarts``
    times, since one that was interrupted has no honest clock; on spot nodes so is one of which a
    worker died.

    Raises:
        WorkError: if it could not be measured.
    """
    config = _parse(settings)
    if (measured := _measured(config, study_id, cell)) is not None:
        print(f"{cell.name} was measured before: run {measured}")
        return measured
    dataset = Dataset.open(config.dataset_dir)
    own, folder = cell_config(config, cell), StudyFolder.path(config, study_id)
    listener = Listener(on_note=lambda text: print(text, flush=True))
    lost = (PreemptedError,) if config.cluster.spot == "none" else (PreemptedError, WorkError)
    restarts, most = 0, config.cluster.max_restarts
    with Preemption().watched() as preemption:
        while True:
            try:
                begin_run(own, dataset, cell, "cell", study_id, folder, listener)
                if (measured := _measured(config, study_id, cell)) is not None:
                    return measured
                raise PreemptedError(f"{cell.name} was interrupted, by a queue perhaps")
            except (DivergedError, UnansweredError):
                raise  # as it would again; or the job may run on, and another would end it
            except lost as error:
                if restarts == most or preemption.asked:
                    raise WorkError(str(error)) from None
                restarts += 1
                print(f"{error}: beginning again ({restarts} of {most})", flush=True)


def compare_study(settings: str, study_id: str, page: Path) -> None:
    """Compare the study's cells, and write the report's page to ``page``."""
    from pipelines.cli.actions import compare
    from pipelines.cli.narrator import Narrator
    from pipelines.compare.html import render_html

    config = _parse(settings)
    report = compare(config, Narrator(), [f"{config.name}/{study_id}"])
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render_html(report), encoding="utf-8")


def _parse(settings: str) -> Config:
    config = parse_config(json.loads(settings), "step")
    if ClusterConfig.of_this_step() is None:
        return config
    tracked = config.tracking.model_copy(update={"uri": config.cluster.tracking_uri})
    return config.model_copy(update={"tracking": tracked})


def _measured(config: Config, study_id: str, cell: Cell) -> str | None:
    """The finished run of a cell that an earlier attempt at its step has left."""
    for run in tracking.read_runs(config):
        ended = run.kind == "cell" and run.status == "FINISHED" and not run.interruption
        if ended and run.tags.get(STUDY_TAG) == study_id and Cell.of_params(run.params) == cell:
            return run.run_id
    return None


def _tell_progress(name: str, number: int, members: int, step: int, steps: int) -> None:
    if step in (0, steps):
        state = "done" if step else "starting"
        print(f"{number}/{members} {name}, {state}", flush=True)
