import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipelines.resources import HostMeter
from pipelines.worker import Worker


def zone(folder: Path, number: str, name: str, microjoules: int, span: int = 1_000_000) -> Path:
    made = folder / f"intel-rapl:{number}"
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{span}\n")
    return made / "energy_uj"


def sent(monkeypatch: pytest.MonkeyPatch, *readings: int) -> None:
    """What the interfaces have sent, at each look."""
    looks = iter(readings)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: SimpleNamespace(bytes_sent=next(looks)))


def test_bytes_are_those_that_were_sent_in_between(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent(monkeypatch, 1_000, 1_750)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()

    assert meter.end() == {"network_bytes": 750}


def test_energy_is_that_of_packages_and_memory_each_counted_once(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", 100_000)
    core = zone(tmp_path, "0:0", "core", 40_000)
    memory = zone(tmp_path, "0:1", "dram", 10_000)
    other = zone(tmp_path, "1", "package-1", 0)
    platform = zone(tmp_path, "2", "psys", 500_000)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()
    for counter, now in ((package, 350_000), (core, 90_000), (memory, 30_000), (other, 5_000)):
        counter.write_text(str(now))
    platform.write_text("900000")

    assert meter.end()["energy_joules"] == pytest.approx(0.25 + 0.02 + 0.005)


def test_a_counter_that_begins_anew_loses_nothing_if_it_is_looked_at_often_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.resources._SECONDS_BETWEEN_READINGS", -1.0)
    counter = zone(tmp_path, "0", "package-0", 900_000, span=1_000_000)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()
    for reading in ("100000", "800000", "300000"):
        counter.write_text(reading)
        meter.keep_up()

    assert meter.end()["energy_joules"] == pytest.approx(0.2 + 0.7 + 0.5)


def test_counters_are_looked_at_once_a_minute_not_at_every_call(tmp_path: Path) -> None:
    counter = zone(tmp_path, "0", "package-0", 0)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()
    counter.unlink()

    meter.keep_up()  # or it would miss it


@pytest.mark.parametrize("missing", ["energy_uj", "max_energy_range_uj", "name"])
def test_what_a_machine_does_not_tell_is_not_made_up(tmp_path: Path, missing: str) -> None:
    counter = zone(tmp_path, "0", "package-0", 100)
    (counter.parent / missing).unlink()
    meter = HostMeter(powercap=tmp_path)

    meter.begin()

    assert set(meter.end()) == {"network_bytes"}


def test_the_energy_of_gpus_comes_from_nvidias_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    millijoules = {0: 5_000, 1: 1_000}
    library: Any = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: millijoules[handle],
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    counter = zone(tmp_path, "0", "package-0", 0)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()
    millijoules |= {0: 8_000, 1: 1_500}
    counter.write_text("250000")

    assert meter.end()["energy_joules"] == pytest.approx(3 + 0.5 + 0.25)


def test_a_machine_whose_gpus_do_not_answer_has_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RuntimeError("no driver")

    library: Any = SimpleNamespace(NVMLError=RuntimeError, nvmlInit=refuse)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    meter = HostMeter(powercap=tmp_path)

    meter.begin()

    assert "energy_joules" not in meter.end()


@pytest.mark.parametrize(
    ("rank", "local_rank", "hosts", "network", "energy"),
    [
        (0, None, 1, True, True),
        (0, "0", 1, True, True),
        (1, "1", 1, False, False),
        (2, "0", 1, True, True),
        (0, "0", 2, True, True),
        (2, "0", 2, True, False),
    ],
    ids=["alone", "first", "second", "first of the next host", "chief, emulated", "emulated"],
)
def test_a_host_is_counted_once(
    rank: int,
    local_rank: str | None,
    hosts: int,
    network: bool,
    energy: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if local_rank is None:
        monkeypatch.delenv("LOCAL_RANK", raising=False)
    else:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr("pipelines.resources._rapl", lambda folder: [lambda: 0.5])
    sent(monkeypatch, 10, 30)
    meter = HostMeter.of(Worker(rank, 4), hosts)

    meter.begin()

    expected = {"network_bytes": 20.0 * network, "energy_joules": 0.5 * energy}
    assert meter.end() == expected
