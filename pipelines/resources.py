"""What a training run takes of its hosts during the timed steps: bytes sent, and energy.

Both are counters of the whole host, so one worker of each host reads them, and what others do
there meanwhile is in them.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from pipelines.worker import Worker

__all__ = ["HostMeter"]

_POWERCAP = Path("/sys/class/powercap")
_SECONDS_BETWEEN_READINGS = 60.0
"""RAPL's counters begin anew after some 65 kJ and more: minutes, so two readings would not do."""

_Source = Callable[[], float]
"""Joules since the last call."""


class HostMeter:
    """The counters of this host, over one stretch of time."""

    def __init__(
        self, *, network: bool = True, energy: bool = True, powercap: Path = _POWERCAP
    ) -> None:
        """Without ``network`` or ``energy`` it is another worker that counts it, and 0 here."""
        self._network, self._energy, self._powercap = network, energy, powercap
        self._sources: list[_Source] = []
        self._sent_before: float | None = None
        self._joules = self._read_at = 0.0

    @classmethod
    def of(cls, worker: Worker, hosts: int) -> "HostMeter":
        """A worker's: one of each host reads.

        Of several emulated ``hosts`` the first alone reads energy, since they are one machine.
        """
        counts = int(os.environ.get("LOCAL_RANK", "0")) == 0
        return cls(network=counts, energy=counts and (hosts == 1 or worker.is_chief))

    def begin(self) -> None:
        """The stretch begins."""
        if self._energy:
            self._sources = [*_rapl(self._powercap), *_nvml()]
        self._joules, self._read_at = 0.0, time.monotonic()
        self._sent_before = _bytes_sent()

    def keep_up(self) -> None:
        """Called now and then meanwhile, lest a counter begins anew twice unseen."""
        if time.monotonic() - self._read_at > _SECONDS_BETWEEN_READINGS:
            self._read_energy()

    def end(self) -> dict[str, float]:
        """The stretch has ended: its metrics, without those that this host does not tell."""
        sent_now = _bytes_sent()
        found: dict[str, float] = {}
        if not self._network:
            found["network_bytes"] = 0.0
        elif self._sent_before is not None and sent_now is not None:
            found["network_bytes"] = sent_now - self._sent_before
        if not self._energy:
            found["energy_joules"] = 0.0
        elif self._sources:
            self._read_energy()
            found["energy_joules"] = self._joules
        return found

    def _read_energy(self) -> None:
        self._joules += sum(source() for source in self._sources)
        self._read_at = time.monotonic()


def _bytes_sent() -> float | None:
    """By all interfaces that this process sees, loopback included."""
    counters = psutil.net_io_counters()
    return None if counters is None else float(counters.bytes_sent)


def _rapl(powercap: Path) -> Iterator[_Source]:
    """Processors and memory.

    Zones within a package are part of it, but for memory; a platform's zone, which has them all,
    is left out.
    """
    for zone in sorted(powercap.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):  # reading energy is root's alone on most machines
            kind = (zone / "name").read_text().strip()
            if kind.startswith("package") or kind == "dram":
                yield _zone(zone)


def _zone(folder: Path) -> _Source:
    counter = folder / "energy_uj"
    last = int(counter.read_text())
    span = int((folder / "max_energy_range_uj").read_text())

    def joules() -> float:
        nonlocal last
        now = int(counter.read_text())
        used = now - last if now >= last else now - last + span
        last = now
        return used / 1e6

    return joules


def _nvml() -> Iterator[_Source]:
    """The GPUs, where NVIDIA's own library is there."""
    try:
        import pynvml
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(number)
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
        yield from [_gpu(pynvml, handle) for handle in handles]
    except pynvml.NVMLError:  # no driver, or GPUs from before Volta
        return


def _gpu(pynvml: Any, handle: Any) -> _Source:
    last = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)

    def joules() -> float:
        nonlocal last
        now = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        used, last = now - last, now
        return float(used) / 1e3

    return joules
