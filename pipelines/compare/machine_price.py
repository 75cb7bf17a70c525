"""What an hour of the compared runs' machine costs, by the prices' file and the machine's line."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.hardware import Machine
from pipelines.prices import ComputePrices

__all__ = ["HourPrice", "price_of_machine", "price_of_run"]


@dataclass(frozen=True)
class HourPrice:
    """An hour's price, or why there is none."""

    amount: float | None
    reason: str = ""


def price_of_machine(machine: Machine, prices: ComputePrices) -> HourPrice:
    """The whole machine."""
    if prices.machine_hour is not None:
        return HourPrice(prices.machine_hour)
    return _by_parts(machine, prices, machine.cores, machine.accelerators)


def price_of_run(
    machine: Machine, prices: ComputePrices, workers: int, threads_per_worker: int | None
) -> HourPrice:
    """What a training run pays for: the whole machine, or its workers' part of it."""
    if prices.per == "machine":
        return price_of_machine(machine, prices)
    if machine.cores is None or threads_per_worker is None:
        return HourPrice(None, "how many cores a run fills is not known")
    cores = min(workers * threads_per_worker, machine.cores)
    left, accelerators = workers, {}
    for name, number in machine.accelerators.items():
        accelerators[name] = min(left, number)
        left -= accelerators[name]
    return _by_parts(machine, prices, cores, accelerators)


def _by_parts(
    machine: Machine, prices: ComputePrices, cores: int | None, accelerators: Mapping[str, int]
) -> HourPrice:
    if not cores or not machine.cores or machine.memory_gib is None:
        return HourPrice(None, "the machine's cores or memory are not known")
    assert prices.vcpu_hour is not None and prices.gib_hour is not None, "validated"
    amount = cores * prices.vcpu_hour
    amount += cores / machine.cores * machine.memory_gib * prices.gib_hour
    for name, number in accelerators.items():
        each = _accelerator_price(name, prices.accelerator_hour)
        if number and each is None:
            return HourPrice(None, f"compute.accelerator_hour has no price of {name}")
        amount += number * (each or 0)
    return HourPrice(amount)


def _accelerator_price(name: str, prices: Mapping[str, float]) -> float | None:
    """The price whose name is the longest part of the accelerator's."""
    fitting = [known for known in prices if known.lower() in name.lower()]
    return prices[max(fitting, key=len)] if fitting else None
