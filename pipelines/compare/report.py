"""From tracked runs to conclusions: the one entry to the comparison."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from pipelines.compare import formats
from pipelines.compare.cells import (
    differences_between,
    fitted_laws,
    scaling_points,
    step_splits,
    summarise,
)
from pipelines.compare.collect import Selection, select
from pipelines.compare.findings import findings
from pipelines.compare.maintenance import maintenance_of, newest_ledgers
from pipelines.compare.model import (
    Dataset,
    Environment,
    PipelineRun,
    Report,
    Settings,
    Software,
)
from pipelines.compare.notes import notes
from pipelines.compare.overhead import overheads
from pipelines.compare.prediction_model import Prediction
from pipelines.compare.rules import check_cells, check_parity, check_pipelines
from pipelines.errors import InputError
from pipelines.ledger.model import Ledger
from pipelines.metrics import METRICS
from pipelines.parity.model import Parity
from pipelines.predict.measured import anatomies_of
from pipelines.predict.predict import predict_selected
from pipelines.runs import COMPONENTS_TAG, RunRecord, batch_field
from pipelines.strategies import FRAMEWORKS

__all__ = ["build_report"]

_STAGE_SUFFIX = "_stage_seconds"
_BATCH_SIZES = ("batch_size_per_worker", "global_batch_size")
_BEYOND = (2, 4, 8, 32)
"""Times the most workers that were measured: what is predicted."""
_VERSIONS = ("framework", "framework_version", "software_build", "python_version")
_STAGES = [name for name in METRICS if name.endswith(_STAGE_SUFFIX)]


def build_report(
    records: Sequence[RunRecord],
    study_ids: Sequence[str] | None = None,
    read_parity: Callable[[str], Parity | None] = lambda run_id: None,
    run_address: Callable[[str], str] | None = None,
    read_ledger: Callable[[str], Ledger | None] = lambda run_id: None,
) -> Report:
    """Compare the runs of one study, or of several that did the same work.

    Args:
        records: all runs of the studies' experiments, in any order; strangers are ignored.
        study_ids: which executions of the studies; None means the latest.
        read_parity: the verdict that a run of parity has kept, by the run's id.
        run_address: what the address of an experiment's runs begins with, by its id.
        read_ledger: the details that a ledger's run has kept, by the run's id.

    Raises:
        InputError: if there is nothing to report.
        ComparisonRefusedError: if the runs did not do the same work, or nothing shows that the
            frameworks compute the same.
    """
    selection = select(records, study_ids)
    anatomies = anatomies_of(records, selection.study_ids)
    check_cells([*selection.cell_runs, *anatomies])
    check_pipelines(list(selection.pipelines.values()))
    verdicts = check_parity(selection.cell_runs, records)

    runs = [*selection.cell_runs, *selection.pipelines.values()]
    known = _first_values(runs or records)
    fixed = {
        batch_field(run.params["scaling"]): run.params.get(batch_field(run.params["scaling"]))
        for run in selection.cell_runs
    }
    cells = [summarise(key, members) for key, members in selection.cells.items()]
    scaling = scaling_points(cells)
    differences = differences_between(cells)
    splits = step_splits(cells, anatomies)
    settings = _settings({**known, **dict.fromkeys(_BATCH_SIZES), **fixed})
    pipelines = {name: _pipeline(run) for name, run in selection.pipelines.items()}
    ledgers = newest_ledgers(records)
    maintenance = maintenance_of(ledgers, read_ledger)
    overhead = overheads(cells, selection, ledgers)
    return Report(
        study=_names(runs or records),
        study_id=selection.title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        findings=findings(cells, scaling, differences, splits, overhead, pipelines, maintenance),
        dataset=Dataset(
            fingerprint=known.get("dataset_fingerprint"),
            rows=_integer(known.get("dataset_rows")),
            source=known.get("dataset_source"),
        ),
        environment=Environment(hardware=known.get("hardware"), software=_software(runs)),
        settings=settings,
        cells=cells,
        scaling=scaling,
        differences=differences,
        splits=splits,
        laws=fitted_laws(cells),
        prediction=_prediction(selection, anatomies) if anatomies else None,
        pipelines=pipelines,
        overhead=overhead,
        maintenance=maintenance,
        failed=selection.unfinished,
        parity=[kept for run in verdicts if (kept := read_parity(run.run_id)) is not None],
        run_address=_address([*runs, *anatomies], run_address),
        notes=notes(selection, settings, cells, scaling, verdicts),
    )


def _prediction(selection: Selection, anatomies: Sequence[RunRecord]) -> Prediction | None:
    """Of a few worker counts beyond the measured ones, if the study has what it takes."""
    if len(selection.study_ids) > 1:
        return None
    most = max(key.workers for key in selection.cells)
    try:
        return predict_selected(selection, anatomies, [most * factor for factor in _BEYOND])
    except InputError:  # some series was not taken apart on two workers or more
        return None


def _pipeline(run: RunRecord) -> PipelineRun:
    metrics = {name: value for name, value in run.metrics.items() if math.isfinite(value)}
    blessed = metrics.get("blessed")
    return PipelineRun(
        seconds=metrics.get("pipeline_seconds"),
        stages={
            name.removesuffix(_STAGE_SUFFIX): metrics[name] for name in _STAGES if name in metrics
        },
        components=run.figures_of(COMPONENTS_TAG),
        cached_stages=round(metrics.get("cached_stages", 0)),
        blessed=None if blessed is None else blessed > 0,
        eval_metrics={name: metrics[name] for name in formats.JUDGED if name in metrics},
        mlflow_run_id=run.run_id,
    )


def _software(runs: Sequence[RunRecord]) -> list[Software]:
    """Runs with the same versions together."""
    alike: dict[tuple[str | None, ...], list[RunRecord]] = {}
    for run in sorted(runs, key=lambda run: run.start_time):
        if run.params.get("framework") in FRAMEWORKS:
            alike.setdefault(tuple(run.params.get(name) for name in _VERSIONS), []).append(run)
    found = [
        Software.model_validate(
            dict(zip(_VERSIONS, versions, strict=True))
            | {"mlflow_run_ids": [run.run_id for run in members]}
        )
        for versions, members in alike.items()
    ]
    return sorted(found, key=lambda software: FRAMEWORKS.index(software.framework))


def _address(runs: Sequence[RunRecord], of: Callable[[str], str] | None) -> str | None:
    experiments = {run.experiment_id for run in runs}
    return of(experiments.pop()) if of is not None and len(experiments) == 1 else None


def _names(runs: Sequence[RunRecord]) -> str:
    return ", ".join(sorted({run.params["study"] for run in runs if "study" in run.params}))


def _settings(known: Mapping[str, str | None]) -> Settings:
    """Safe to read from any run: the rules have seen that all agree."""
    numbers = {"threads_per_worker", "steps", "warmup_steps", "seed", *_BATCH_SIZES}
    return Settings.model_validate(
        {
            field: _integer(known.get(field)) if field in numbers else known.get(field)
            for field in Settings.model_fields
        }
    )


def _first_values(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Each parameter's value in the first run that recorded it."""
    values: dict[str, str] = {}
    for run in runs:
        for name, value in run.params.items():
            values.setdefault(name, value)
    return values


def _integer(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
