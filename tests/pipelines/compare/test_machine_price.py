import pytest

from pipelines.compare.machine_price import price_of_machine, price_of_run
from pipelines.hardware import Machine
from pipelines.prices import ComputePrices

SMALL = Machine(cores=4, memory_gib=16, accelerators={})
GPUS = Machine(cores=8, memory_gib=64, accelerators={"NVIDIA H100 80GB HBM3": 2, "NVIDIA L4": 1})


def prices(**fields: object) -> ComputePrices:
    parts = {"vcpu_hour": 0.05, "gib_hour": 0.005}
    named = {"NVIDIA H100": 3.0, "NVIDIA H100 80GB": 4.0, "l4": 0.5}
    return ComputePrices.model_validate(parts | {"accelerator_hour": named} | fields)


def test_a_machine_is_the_sum_of_its_parts() -> None:
    assert price_of_machine(SMALL, prices()).amount == pytest.approx(4 * 0.05 + 16 * 0.005)


def test_an_accelerator_has_the_price_with_the_longest_fitting_name() -> None:
    hour = price_of_machine(GPUS, prices())

    assert hour.amount == pytest.approx(8 * 0.05 + 64 * 0.005 + 2 * 4.0 + 0.5)


def test_a_price_of_the_whole_goes_before_those_of_its_parts() -> None:
    assert price_of_machine(GPUS, prices(machine_hour=12.5)).amount == 12.5
    assert price_of_machine(Machine(None, None, {}), prices(machine_hour=1)).amount == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_by_machine_a_run_pays_for_all_of_it(workers: int) -> None:
    whole = price_of_machine(SMALL, prices())

    assert price_of_run(SMALL, prices(per="machine"), workers, 1) == whole


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "accelerators"),
    [(1, 1, 1, 4.0), (2, 2, 4, 8.0), (3, 1, 3, 8.5), (16, 2, 8, 8.5)],
)
def test_by_core_a_run_pays_for_what_its_workers_fill(
    workers: int, threads: int, cores: int, accelerators: float
) -> None:
    hour = price_of_run(GPUS, prices(per="core"), workers, threads)

    assert hour.amount == pytest.approx(cores * 0.05 + cores / 8 * 64 * 0.005 + accelerators)


def test_what_has_no_price_is_named_rather_than_free() -> None:
    unknown = Machine(8, 64, {"NVIDIA B200": 1})

    hour = price_of_machine(unknown, prices())

    assert hour.amount is None
    assert hour.reason == "compute.accelerator_hour has no price of NVIDIA B200"


def test_a_machine_that_is_not_known_has_no_price() -> None:
    assert price_of_machine(Machine(2, None, {}), prices()).reason == (
        "the machine's cores or memory are not known"
    )
    assert price_of_run(SMALL, prices(per="core"), 1, None).reason == (
        "how many cores a run fills is not known"
    )
