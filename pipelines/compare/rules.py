"""Comparable or refused: runs that did not do the same work are never set side by side."""

import re
from collections.abc import Iterable, Sequence

from pipelines.errors import ComparisonRefusedError
from pipelines.runs import COMPARABLE_FIELDS, RunRecord
from pipelines.strategies import FRAMEWORKS

__all__ = ["check_cells", "check_pipelines", "contradicts"]

NOT_RECORDED = "not recorded"
_HASH = re.compile(r"[0-9a-f]{32,}")


def check_cells(cells: Sequence[RunRecord]) -> None:
    """Let cells pass that agree in every comparable field; one left unrecorded is no agreement.

    Raises:
        ComparisonRefusedError: naming each field that differs, with its values by framework.
    """
    _check(cells, COMPARABLE_FIELDS)


def check_pipelines(pipelines: Sequence[RunRecord]) -> None:
    """Let pipelines pass that read the same dataset and agree in whatever else they recorded.

    Raises:
        ComparisonRefusedError: naming each field that differs, with its values by framework.
    """
    recorded = {field for run in pipelines for field in run.params}
    fields = [
        field for field in COMPARABLE_FIELDS if field == "dataset_fingerprint" or field in recorded
    ]
    _check(pipelines, fields)


def contradicts(run: RunRecord, reference: RunRecord) -> bool:
    """Whether two runs both recorded some comparable field, and recorded it differently."""
    return any(
        run.params[field] != reference.params[field]
        for field in COMPARABLE_FIELDS
        if field in run.params and field in reference.params
    )


def _check(runs: Sequence[RunRecord], fields: Iterable[str]) -> None:
    if len(runs) < 2:
        return  # one run alone is reported, not compared
    differences: dict[str, list[str]] = {}
    clauses: list[str] = []
    for field in fields:
        values = {run.params.get(field, NOT_RECORDED) for run in runs}
        if len(values) > 1:
            clauses.append(f"{field} differs ({_by_framework(runs, field)})")
        elif values == {NOT_RECORDED}:
            clauses.append(f"{field} is not recorded")
        else:
            continue
        differences[field] = sorted(values)
    if differences:
        raise ComparisonRefusedError(f"comparison refused: {'; '.join(clauses)}", differences)


def _by_framework(runs: Sequence[RunRecord], field: str) -> str:
    """Such as ``tf: 32, torch: 32 and 64``."""
    parts = []
    for framework in FRAMEWORKS:
        values = {
            run.params.get(field, NOT_RECORDED)
            for run in runs
            if run.params.get("framework") == framework
        }
        if values:
            parts.append(f"{framework}: {' and '.join(_short(value) for value in sorted(values))}")
    return ", ".join(parts)


def _short(value: str) -> str:
    """A hash by its first digits; anything else whole, on one line."""
    return f"{value[:12]}.." if _HASH.fullmatch(value) else " ".join(value.split())
