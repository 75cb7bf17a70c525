"""Verdicts in the tracking store: what one holds for, logging it, and finding it again."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from pipelines import tracking
from pipelines.cell import study_params
from pipelines.config import Config
from pipelines.ingest.manifest import Manifest
from pipelines.parity.model import Parity
from pipelines.parity.output import JSON_NAME, write_parity
from pipelines.runs import PARITY_PASSED, RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["find_passed", "keep", "parity_params", "read"]

_THOROUGHNESS = ("parity_steps", "parity_workers", "parity_floor_runs")
_OF_A_STUDY = (
    "study",
    "batch_size_per_worker",
    "steps",
    "warmup_steps",
    "network",
    "config_sha256",
)
"""What a study's runs record and a verdict does not depend on, or names otherwise."""


def parity_params(
    config: Config, manifest: Manifest, software: Mapping[Framework, Mapping[str, str]]
) -> dict[str, object]:
    """What a verdict holds for; ``software`` is what each framework says of itself."""
    sides = {}
    for framework in FRAMEWORKS:
        sides[f"{framework}_strategy"] = config.strategy(framework)
        sides[f"{framework}_strategy_options"] = config.strategy_options(framework)
        for field, value in software[framework].items():
            sides[f"{framework}_{field}"] = value
    common = study_params(config, manifest)
    return {
        **{name: value for name, value in common.items() if name not in _OF_A_STUDY},
        "study": config.name,
        "reader": "shared",
        "threads_per_worker": 1,
        "global_batch_size": config.training.batch_size_per_worker,
        "parity_workers": ", ".join(str(workers) for workers in sorted(config.parity.workers)),
        "parity_steps": config.parity.steps,
        "parity_floor_runs": config.parity.floor_runs,
        **sides,
    }


def keep(config: Config, parity: Parity, study_id: str) -> tuple[Parity, Path]:
    """Write a verdict to disk and to the tracking store.

    Returns:
        The verdict with its run's id, and the page's path.
    """
    name = f"parity {'passed' if parity.passed else 'failed'}"
    run_id = tracking.create_run(config, name, "parity", study_id, parity.params)
    with tracking.ended_if_failed(config, run_id):
        kept = parity.model_copy(update={"mlflow_run_id": run_id})
        html, data = write_parity(kept, config.output)
        tracking.log_metrics(config, run_id, _metrics(parity))
        tracking.log_files(config, run_id, [html, data])
    tracking.finish_run(config, run_id, "FINISHED")
    return kept, html


def find_passed(records: Sequence[RunRecord], params: Mapping[str, object]) -> RunRecord | None:
    """The newest verdict on the same inputs and code, if it was passed and as thorough."""
    wanted = {name: str(value) for name, value in params.items() if name not in _THOROUGHNESS}
    for run in sorted(records, key=lambda run: run.start_time, reverse=True):
        if run.kind != "parity" or run.status != "FINISHED":
            continue
        if any(run.params.get(name) != value for name, value in wanted.items()):
            continue
        if not run.metrics.get(PARITY_PASSED):
            return None
        if _covers(run.params, params):
            return run
    return None


def read(config: Config, run_id: str) -> Parity | None:
    """The whole of a tracked verdict; None if its file is gone, or of a version long past."""
    text = tracking.read_file(config, run_id, JSON_NAME)
    try:
        return None if text is None else Parity.model_validate_json(text)
    except ValidationError:
        return None


def _covers(had: Mapping[str, str], wanted: Mapping[str, object]) -> bool:
    workers = [
        {each.strip() for each in str(side["parity_workers"]).split(",")} for side in (had, wanted)
    ]
    return workers[0] >= workers[1] and all(
        int(had[name]) >= int(str(wanted[name])) for name in ("parity_steps", "parity_floor_runs")
    )


def _metrics(parity: Parity) -> dict[str, float]:
    """The verdict, and each pair's largest differences."""
    figures = {PARITY_PASSED: float(parity.passed)}
    for comparison in parity.comparisons:
        pair = comparison.title.replace(" and ", "_").replace(", ", "_").replace(" ", "_")
        for check in comparison.steps:
            figures[f"{pair}/{check.quantity}"] = check.largest
            figures[f"{pair}/{check.quantity}_first_steps"] = check.first_steps
        for end in comparison.ends:
            figures[f"{pair}/{end.quantity}_end"] = end.difference
    return {name: value for name, value in figures.items() if math.isfinite(value)}
