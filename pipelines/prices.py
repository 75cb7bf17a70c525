"""Prices: what an hour of a machine and of an engineer costs, as ``configs/prices.yaml`` has it.

None of them is built in. The shipped file holds examples, marked as such, until its owner puts in
their own and says so.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from pipelines.data_config import Section
from pipelines.environments import PROJECT_ROOT
from pipelines.yaml_file import read_mapping, validated

__all__ = [
    "DEFAULT_PRICES",
    "ComputePrices",
    "EngineerPrices",
    "MaintenanceWeights",
    "Prices",
    "load_prices",
]

DEFAULT_PRICES = PROJECT_ROOT / "configs" / "prices.yaml"

Amount = Annotated[float, Field(ge=0)]


class ComputePrices(Section):
    """An hour of the machine: as a whole, or by its parts."""

    per: Literal["machine", "core"] = "machine"
    """What a training run pays for while it lasts. ``machine``: all of it. ``core``: the cores that
    its workers' threads fill, their share of the memory, and an accelerator per worker, each as far
    as there are any."""
    machine_hour: Amount | None = None
    """All of the machine, accelerators included; null: by its parts, which count for nothing
    otherwise."""
    vcpu_hour: Amount | None = None
    """A core, as the operating system counts them."""
    gib_hour: Amount | None = None
    """A GiB of memory."""
    accelerator_hour: dict[str, Amount] = {}
    """Name, or a part of it, as ``nvidia-smi`` gives it -> one such accelerator."""

    @model_validator(mode="after")
    def _can_price_what_it_is_asked_for(self) -> Self:
        if self.machine_hour is None and (self.vcpu_hour is None or self.gib_hour is None):
            raise ValueError("needs machine_hour, or else vcpu_hour and gib_hour")
        if self.per == "core" and self.machine_hour is not None:
            raise ValueError("per: core needs vcpu_hour and gib_hour, not machine_hour")
        return self


class MaintenanceWeights(Section):
    """Hours of an engineer's year that each of these is assumed to take."""

    direct_dependency: Amount
    """Each package that the project asks for: to read its changes, raise it, and test."""
    package: Amount
    """Each package installed with them: that its next release breaks nothing."""
    thousand_lines: Amount
    """Each thousand lines of the twin."""
    complexity: Amount
    """Each unit of the twin's cyclomatic complexity."""
    held_back_pin: Amount
    """Each requirement whose upper bound excludes the newest release."""
    deprecation_warning: Amount
    """Each distinct deprecation warning that the twin's tests bring out."""
    vulnerability: Amount
    """Each known vulnerability of an installed package."""


class EngineerPrices(Section):
    """An engineer's hour, and how many of them keeping a side is assumed to take."""

    hour: Amount
    models_per_year: PositiveFloat
    """Models among which a year's maintenance is shared out."""
    hours_per_year: MaintenanceWeights


class Prices(Section):
    """The whole file."""

    as_of: date
    """When they were prices."""
    currency: Annotated[str, Field(pattern=r"^\S{1,8}$")]
    """Such as ``USD``; all amounts are in it."""
    example: bool
    """Whether they are made up; the report says so beside the figures that rest on them."""
    source: str = ""
    """Where they come from."""
    compute: ComputePrices
    engineer: EngineerPrices


def load_prices(path: Path) -> Prices:
    """Read and check a file of prices.

    Raises:
        InputError: with one line that names the file, the field and the mend.
    """
    example = "as_of: 2026-11-25"
    raw = read_mapping(path, "the shipped one is configs/prices.yaml", example)
    return validated(Prices, raw, str(path))
