"""From the runs of an experiment to the ones that count: which study, cell, and repeat."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipelines.cell import Cell
from pipelines.compare.model import Unfinished
from pipelines.compare.rules import contradicts
from pipelines.errors import InputError
from pipelines.runs import COMPONENTS_TAG, STUDY_TAG, RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["THROUGHPUT", "CellKey", "Selection", "latest_study", "select"]

THROUGHPUT = "examples_per_second"
"""The metric that the matrix compares."""


class CellKey(NamedTuple):
    """What tells one cell of the matrix from another; sorts the way a table reads."""

    scaling: str
    workers: int
    framework: Framework
    strategy: str

    @classmethod
    def of(cls, cell: Any) -> "CellKey":
        """Of anything that has these four."""
        return cls(cell.scaling, cell.workers, cell.framework, cell.strategy)


@dataclass(frozen=True)
class Selection:
    """The runs of one study or several, sorted into what counts and what does not."""

    study_ids: tuple[str, ...]
    cells: dict[CellKey, list[RunRecord]]
    """Finished runs by cell, in the order of their repeats."""
    pipelines: dict[Framework, RunRecord]
    """Of each framework the newest finished pipeline of those that took least from a cache."""
    reruns: dict[Framework, RunRecord]
    """Of each framework the studies' newest pipeline of which every component was cached."""
    recoveries: dict[Framework, RunRecord]
    """Of each framework the studies' newest run that got over a fault."""
    unfinished: list[Unfinished]
    superseded: list[RunRecord]
    """Finished runs of a repeat that a later run did again."""

    @property
    def title(self) -> str:
        """Their ids."""
        return ", ".join(self.study_ids)

    @property
    def cell_runs(self) -> list[RunRecord]:
        """Every run that counts for a cell."""
        return [run for runs in self.cells.values() for run in runs]


def select(records: Sequence[RunRecord], study_ids: Sequence[str] | None = None) -> Selection:
    """Pick the runs of the named studies, by default of the latest.

    Raises:
        InputError: if there is no such study, or nothing at all to report.
    """
    cells = [run for run in records if run.kind == "cell"]
    pipelines = [run for run in records if run.kind == "pipeline"]
    chosen_ids = _studies(cells, pipelines, study_ids)

    kept, unfinished, superseded = _sort_out(run for run in cells if _study_of(run) in chosen_ids)
    groups: dict[CellKey, list[RunRecord]] = defaultdict(list)
    for (key, *_), run in sorted(kept.items()):
        groups[key].append(run)

    reference = next(iter(kept.values()), None)
    chosen = _choose_pipelines(pipelines, chosen_ids, reference)
    for run in pipelines:
        if _study_of(run) in chosen_ids and run.status != "FINISHED":
            retried = run.params.get("framework") in chosen
            unfinished.append(_unfinished(run, "did not finish", retried))
    attempted = any(_study_of(run) in chosen_ids for run in cells)
    if not kept and (attempted or not chosen):
        raise InputError(_nothing_finished(chosen_ids, unfinished[0], len(unfinished)))
    own = [run for run in records if _study_of(run) in chosen_ids]
    return Selection(
        study_ids=chosen_ids,
        cells=dict(groups),
        pipelines=chosen,
        reruns=_newest_by_framework(run for run in own if _is_cached_whole(run)),
        recoveries=_newest_by_framework(run for run in own if _has_recovered(run)),
        unfinished=unfinished,
        superseded=superseded,
    )


def latest_study(records: Sequence[RunRecord]) -> str:
    """The id of the newest study of an experiment, or of its newest pipelines if it has none.

    Raises:
        InputError: if nothing has been run.
    """
    cells = {_study_of(run) for run in records if run.kind == "cell"}
    known = cells or {_study_of(run) for run in records if run.kind == "pipeline"}
    if not known:
        raise InputError(
            "nothing to compare: no finished or failed run is tracked here; "
            "`tandem study --config ...` makes some"
        )
    return max(known)


def _study_of(run: RunRecord) -> str:
    return run.tags.get(STUDY_TAG, "")


def _studies(
    cells: list[RunRecord], pipelines: list[RunRecord], asked: Sequence[str] | None
) -> tuple[str, ...]:
    if asked is None:
        return (latest_study([*cells, *pipelines]),)
    known = {_study_of(run) for run in [*cells, *pipelines]}
    for study_id in asked:
        if study_id not in known:
            raise InputError(f"no study '{study_id}' is tracked here; there are: {_listed(known)}")
    return tuple(dict.fromkeys(asked))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names, reverse=True))


_Place = tuple[CellKey, str, int]
"""A cell, a study, and a repeat within it."""


def _sort_out(
    runs: Iterable[RunRecord],
) -> tuple[dict[_Place, RunRecord], list[Unfinished], list[RunRecord]]:
    """One run per place, the rest with the reason why they do not count."""
    kept: dict[_Place, RunRecord] = {}
    rejected: list[tuple[RunRecord, str, _Place | None]] = []
    superseded: list[RunRecord] = []
    for run in sorted(runs, key=lambda run: run.start_time):
        place = _place(run)
        reason = _why_not(run, place)
        if place is None or reason:
            rejected.append((run, reason, place))
            continue
        if place in kept:
            superseded.append(kept[place])
        kept[place] = run
    unfinished = [_unfinished(run, reason, place in kept) for run, reason, place in rejected]
    return kept, unfinished, superseded


def _place(run: RunRecord) -> _Place | None:
    cell = Cell.of_params(run.params)
    if cell is None:
        return None
    return CellKey.of(cell), _study_of(run), cell.repeat


def _why_not(run: RunRecord, place: _Place | None) -> str:
    """Why a run does not count, or an empty string if it does."""
    if run.status == "RUNNING":
        return "still runs, or was cut off without a word"
    if run.status != "FINISHED":
        return "did not finish"
    if run.interruption:
        return run.interruption
    if place is None:
        return "lacks usable framework, strategy, workers, scaling or repeat parameters"
    throughput = run.metrics.get(THROUGHPUT, math.nan)
    if not (math.isfinite(throughput) and throughput > 0):
        return f"finished without a usable {THROUGHPUT}"
    return ""


def _unfinished(run: RunRecord, reason: str, retried: bool) -> Unfinished:
    return Unfinished(
        run_id=run.run_id,
        name=run.name,
        kind="pipeline" if run.kind == "pipeline" else "cell",
        status=run.status,
        reason=reason,
        retried=retried,
    )


def _nothing_finished(study_ids: Sequence[str], first: Unfinished, count: int) -> str:
    return (
        f"nothing to compare: of study {_listed(study_ids)} nothing finished; of {count} runs the "
        f"first is {first.name}, {first.status}, which {first.reason}; see its log, then go on by "
        "`tandem study --resume FOLDER`"
    )


def _choose_pipelines(
    pipelines: list[RunRecord], study_ids: Sequence[str], reference: RunRecord | None
) -> dict[Framework, RunRecord]:
    """The finished pipeline per framework that tells what the whole work takes.

    Of the study's own, else of those that fit it, the newest among those that took least from a
    cache. One fits if it read the study's dataset and contradicts no parameter of its cells. Where
    that one took something, another study's that did the same work may have taken less.
    """
    chosen: dict[Framework, RunRecord] = {}
    for framework in FRAMEWORKS:
        finished = [
            run
            for run in pipelines
            if run.status == "FINISHED" and run.params.get("framework") == framework
        ]
        own = [run for run in finished if _study_of(run) in study_ids]
        fitting = [
            run
            for run in finished
            if reference is not None
            and "dataset_fingerprint" in run.params
            and not contradicts(run, reference)
        ]
        if candidates := own or fitting:
            best = _least_cached(candidates)
            alike = _least_cached([run for run in finished if _work_of(run) == _work_of(best)])
            chosen[framework] = alike if _cached(alike) < _cached(best) else best
    return chosen


def _least_cached(runs: list[RunRecord]) -> RunRecord:
    """The newest of them."""
    return min(runs, key=lambda run: (_cached(run), -run.start_time))


def _work_of(run: RunRecord) -> dict[str, str]:
    """All that was recorded of it but the digest of settings that no step reads."""
    return {name: value for name, value in run.params.items() if name != "config_sha256"}


def _cached(run: RunRecord) -> float:
    return run.metrics.get("cached_stages", 0.0)


def _is_cached_whole(run: RunRecord) -> bool:
    if run.kind != "pipeline" or run.status != "FINISHED":
        return False
    return 0 < len(run.figures_of(COMPONENTS_TAG)) == _cached(run)


def _has_recovered(run: RunRecord) -> bool:
    """One whose fault came too late for it has none of the metric."""
    known = run.kind == "recovery" and run.status == "FINISHED"
    return known and "notice_seconds" in run.metrics and "recovery_seconds" in run.metrics


def _newest_by_framework(runs: Iterable[RunRecord]) -> dict[Framework, RunRecord]:
    newest: dict[Framework, RunRecord] = {}
    for run in sorted(runs, key=lambda run: run.start_time):
        for framework in FRAMEWORKS:
            if run.params.get("framework") == framework:
                newest[framework] = run
    return newest
