from typing import Any

import pytest

from pipelines.compare.maintenance import Maintenance
from pipelines.compare.maintenance_hours import hours_of
from pipelines.prices import MaintenanceWeights

WEIGHTS = MaintenanceWeights(
    direct_dependency=4,
    package=0.5,
    thousand_lines=8,
    complexity=0.05,
    held_back_pin=3,
    deprecation_warning=1,
    vulnerability=2,
)


def ledger(**rows: Any) -> Maintenance:
    return Maintenance(mlflow_run_id="a" * 32, **rows)


def test_hours_are_the_ledgers_counts_by_the_weights() -> None:
    hours = hours_of(
        ledger(
            direct_dependencies=3,
            total_dependencies=20,
            code_lines=1500,
            cyclomatic_complexity=340,
        ),
        WEIGHTS,
    )

    assert [(term.name, term.count, term.hours) for term in hours.terms] == [
        ("direct_dependency", 3, 12),
        ("package", 20, 10),
        ("thousand_lines", 1.5, 12),
        ("complexity", 340, 17),
    ]
    assert hours.hours_per_year == pytest.approx(12 + 10 + 12 + 17)
    assert hours.mlflow_run_id == "a" * 32


def test_a_row_that_was_not_checked_is_left_out_by_name_and_one_that_is_zero_is_not() -> None:
    hours = hours_of(ledger(direct_dependencies=0), WEIGHTS)

    assert [(term.name, term.hours) for term in hours.terms] == [("direct_dependency", 0)]
    assert hours.hours_per_year == 0
    assert hours.left_out == [
        "package",
        "thousand_lines",
        "complexity",
        "held_back_pin",
        "deprecation_warning",
        "vulnerability",
    ]


def test_held_back_pins_are_the_share_of_the_bounded_ones_that_is_held_back() -> None:
    checked = ledger(bounded_requirements=40, held_back_share=0.25)
    unchecked = ledger(bounded_requirements=40)

    assert hours_of(checked, WEIGHTS).hours_per_year == pytest.approx(10 * 3)
    assert "held_back_pin" in hours_of(unchecked, WEIGHTS).left_out


def test_an_empty_ledger_takes_no_known_hours() -> None:
    assert hours_of(ledger(), WEIGHTS).hours_per_year is None
