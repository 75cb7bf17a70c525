"""Plain statements on how to read a report, and on what its figures cannot tell."""

from collections.abc import Iterable, Mapping, Sequence

from pipelines.compare.collect import CellKey, Selection
from pipelines.compare.formats import percent, title
from pipelines.compare.model import Cell, ScalingPoint, Settings
from pipelines.compare.statistics import LEAST_REPEATS, range_coverage
from pipelines.runs import STUDY_TAG, RunRecord
from pipelines.strategies import ASYNCHRONOUS_STRATEGIES, Framework

__all__ = ["few_repeats", "notes"]

_ENOUGH_REPEATS = 15
"""From here on a few per cent can be told on a shared two-core machine (measured)."""

_NOMINAL = 0.95

_READERS = {
    "shared": "Both frameworks read Tandem's own batch stream, so input pipelines are not compared",
    "native": "Each framework reads through its own input pipeline, whose speed is part of the "
    "comparison",
}


def few_repeats(repeats: int) -> str:
    """Why a verdict from this many repeats a side says little; empty once it says enough."""
    if repeats < LEAST_REPEATS:
        return f"{_count(repeats, 'repeat')} a side: too few to tell anything."
    if repeats >= _ENOUGH_REPEATS:
        return ""
    return (
        f"{repeats} repeats a side tell only a difference well above the spread of the repeats "
        "from chance."
    )


def notes(
    selection: Selection,
    settings: Settings,
    cells: Sequence[Cell],
    scaling: Sequence[ScalingPoint],
    verdicts: Sequence[RunRecord],
) -> list[str]:
    """All statements that hold for this report."""
    statements = [*_cell_notes(settings, cells), *_base_notes(scaling)] if cells else []
    return [
        *statements,
        *_parity_notes(verdicts),
        *_missing_notes(selection.cells),
        *_superseded_notes(selection.superseded),
        *_pipeline_notes(selection.study_ids, selection.pipelines, bool(cells)),
    ]


def _cell_notes(settings: Settings, cells: Sequence[Cell]) -> Iterable[str]:
    frameworks = {cell.framework for cell in cells}
    if len(frameworks) == 1:
        yield f"Only {title(*frameworks)} ran in this study, so nothing compares the frameworks."
    if settings.warmup_steps is not None and settings.steps is not None:
        yield (
            f"Speed figures leave out the first {settings.warmup_steps} of {settings.steps} steps "
            "(warm-up: tracing, compiling, filling caches)."
        )
    if settings.reader in _READERS:
        yield f"{_READERS[settings.reader]} (reader: {settings.reader})."
    for strategy in sorted({cell.strategy for cell in cells} & ASYNCHRONOUS_STRATEGIES):
        yield (
            f"{strategy} is asynchronous: each worker updates the parameters by itself, so a step "
            "is as many updates as there are workers; its figures stand apart from the others."
        )
    fewest = min(len(cell.repeats) for cell in cells)
    yield (
        "Each figure is the median over the repeats of its cell; all finished repeats count. "
        "Intervals are 95 % percentile bootstrap intervals."
    )
    if fewest == 1:
        yield "A cell with 1 repeat has no interval, and no difference can be called from it."
    elif range_coverage(fewest) < _NOMINAL:
        yield (
            f"{fewest} repeats resolve little: an interval can span no more than their range, "
            f"which holds the true median {percent(range_coverage(fewest), 0)} of the time, not "
            "95 %."
        )


def _base_notes(scaling: Sequence[ScalingPoint]) -> Iterable[str]:
    if all(point.workers == point.base_workers for point in scaling):
        yield "Only one worker count finished per framework, so there is no scaling to report."
        return
    bases = sorted({point.base_workers for point in scaling})
    yield (
        f"The base case of scaling is {_count(bases[0], 'worker')}"
        f"{''.join(f' or {base}' for base in bases[1:])}, each framework and strategy against "
        "itself: a slow base case flatters its efficiency."
    )


def _parity_notes(verdicts: Sequence[RunRecord]) -> Iterable[str]:
    for run in verdicts:
        yield (
            f"Both frameworks were shown to compute the same over {run.params['parity_steps']} "
            f"steps at {run.params['parity_workers']} workers (run {run.run_id})."
        )


def _missing_notes(cells: Mapping[CellKey, Sequence[RunRecord]]) -> Iterable[str]:
    most = max((len(runs) for runs in cells.values()), default=0)
    for key, runs in cells.items():
        if len(runs) < most:
            yield (
                f"{title(key.framework, key.strategy)} at {_count(key.workers, 'worker')} has "
                f"{_count(len(runs), 'finished repeat')}, where other cells have {most}."
            )


def _superseded_notes(superseded: Sequence[RunRecord]) -> Iterable[str]:
    if superseded:
        ids = ", ".join(run.run_id for run in superseded)
        yield f"Repeats that were run again count by their latest run; left out: {ids}."


def _pipeline_notes(
    study_ids: Sequence[str], pipelines: Mapping[Framework, RunRecord], in_a_study: bool
) -> Iterable[str]:
    if pipelines:
        yield "Each pipeline ran once, so its seconds carry no interval."
    for framework, run in pipelines.items():
        if in_a_study and run.tags.get(STUDY_TAG, "") not in study_ids:
            yield (
                f"{title(framework)}'s pipeline is not part of this study: it is the latest that "
                "read the same dataset and took least from its cache."
            )
        if cached := round(run.metrics.get("cached_stages", 0)):
            yield (
                f"{title(framework)}'s pipeline took {_count(cached, 'component')} from its cache, "
                "so its seconds are not those of the whole work."
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
