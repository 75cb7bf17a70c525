from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.errors import InputError
from pipelines.prices import DEFAULT_PRICES, load_prices

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """The shipped prices, with fields (by dotted name) changed, or left out where None."""

    def written(changes: dict[str, Any] | None = None, without: str = "") -> Path:
        content = yaml.safe_load(DEFAULT_PRICES.read_text())
        for name, value in (changes or {}).items():
            *sections, field = name.split(".")
            section = content
            for each in sections:
                section = section[each]
            section[field] = value
        content.pop(without, None)
        path = tmp_path / "prices.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return written


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        load_prices(path)
    assert raised.value.exit_code == 2
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{path}: ")


def test_the_shipped_prices_are_marked_as_examples() -> None:
    prices = load_prices(DEFAULT_PRICES)

    assert prices.example is True
    assert "EXAMPLES" in DEFAULT_PRICES.read_text()
    assert prices.source == "none, made up"


def test_a_file_of_ones_own_replaces_them(write: Write) -> None:
    mine = {"example": False, "currency": "EUR", "as_of": "2026-02-01", "engineer.hour": 85.5}

    prices = load_prices(write(mine))

    assert (prices.example, prices.currency, prices.as_of) == (False, "EUR", date(2026, 2, 1))
    assert prices.engineer.hour == 85.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"currancy": "EUR"}, "currancy: unknown key; did you mean 'currency'?"),
        (
            {"compute.vcpu_hours": 1},
            "compute.vcpu_hours: unknown key; did you mean 'vcpu_hour'?",
        ),
        (
            {"engineer.hours_per_year.bug": 1},
            "engineer.hours_per_year.bug: unknown key; known keys: direct_dependency, "
            "package, thousand_lines, complexity, held_back_pin, deprecation_warning, vulnerability",
        ),
        ({"as_of": "yesterday"}, "as_of: input should be a valid date"),
        ({"engineer.hour": -1}, "engineer.hour: input should be greater than or equal to 0, not"),
        ({"engineer.models_per_year": 0}, "engineer.models_per_year: input should be greater"),
        (
            {"compute.accelerator_hour": {"NVIDIA H100": "dear"}},
            "compute.accelerator_hour.NVIDIA H100: input should be a valid number",
        ),
        ({"compute.gib_hour": None}, "compute: needs machine_hour, or else vcpu_hour and gib_hour"),
        (
            {"compute.machine_hour": 1, "compute.per": "core"},
            "compute: per: core needs vcpu_hour and gib_hour, not machine_hour",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_field(
    write: Write, changes: dict[str, Any], message: str
) -> None:
    assert refusal(write(changes)).startswith(message)


def test_whether_they_are_examples_must_be_said(write: Write) -> None:
    assert refusal(write(without="example")) == "example: required, but not given"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "no such file; the shipped one is configs/prices.yaml"


def test_a_file_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("- 1\n")

    assert refusal(path) == "must be a mapping of sections, such as 'as_of: 2026-11-25'"
