"""How much of an engineer's year keeping a side is assumed to take: a weighted sum of its ledger.

An assumption, not a measurement: the counts are measured, the weights are the prices' file's.
"""

import math

from pipelines.compare.maintenance import Maintenance
from pipelines.compare.part import Part
from pipelines.prices import MaintenanceWeights

__all__ = ["MaintenanceHours", "Term", "hours_of"]

_ROWS: dict[str, tuple[str, ...]] = {
    "direct_dependency": ("direct_dependencies",),
    "package": ("total_dependencies",),
    "thousand_lines": ("code_lines",),
    "complexity": ("cyclomatic_complexity",),
    "held_back_pin": ("bounded_requirements", "held_back_share"),
    "deprecation_warning": ("deprecation_warnings",),
    "vulnerability": ("known_vulnerabilities",),
}
"""Weight -> the ledger's rows whose product it is for."""
_UNITS = {"thousand_lines": 1000}


class Term(Part):
    """One row of the ledger, weighted."""

    name: str
    """The weight's, in the prices' file."""
    count: float
    """In the weight's unit."""
    hours_each: float
    hours: float
    """Of a year."""


class MaintenanceHours(Part):
    """One framework's side."""

    hours_per_year: float | None
    """The sum of the terms; null: there is none."""
    terms: list[Term]
    left_out: list[str]
    """Weights whose row the ledger has not checked: not part of the sum."""
    mlflow_run_id: str
    """The ledger's run."""


def hours_of(maintenance: Maintenance, weights: MaintenanceWeights) -> MaintenanceHours:
    """The sum of weight times count over the ledger's rows."""
    terms, left_out = [], []
    for name, rows in _ROWS.items():
        counts = [getattr(maintenance, row) for row in rows]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            left_out.append(name)
            continue
        count, hours_each = math.prod(known) / _UNITS.get(name, 1), getattr(weights, name)
        terms.append(Term(name=name, count=count, hours_each=hours_each, hours=count * hours_each))
    return MaintenanceHours(
        hours_per_year=sum(term.hours for term in terms) if terms else None,
        terms=terms,
        left_out=left_out,
        mlflow_run_id=maintenance.mlflow_run_id,
    )
