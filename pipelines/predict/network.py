"""The network that is predicted for: what a byte and a message cost on its wire."""

import re
from dataclasses import dataclass

from pipelines.collectives import Link
from pipelines.errors import InputError

__all__ = ["Network", "parse_network"]

_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9}
_SECONDS = {"us": 1e-6, "ms": 1e-3}


@dataclass(frozen=True)
class Network:
    """A link of its own for each worker, the same in both directions at once."""

    name: str
    """As it was asked for, such as ``100gbit, 2us``."""
    seconds_per_byte: float
    latency_seconds: float = 0.0
    """What the wire adds to the latency that was measured."""

    def carry(self, measured: Link) -> Link:
        """What a message costs over it: the software what was measured, the wire what it says.

        A byte is copied and sent at the same time, so that the slower of both counts.
        """
        return Link(
            measured.latency_seconds + self.latency_seconds,
            max(measured.seconds_per_byte, self.seconds_per_byte),
        )


def parse_network(rate: str, latency: str | None = None) -> Network:
    """From a rate such as ``100gbit`` and a latency such as ``2us``; ``100gbit,2us`` is both.

    Raises:
        InputError: naming the option that has another form.
    """
    rate, comma, after = (part.strip() for part in rate.partition(","))
    if comma:
        if latency is not None:
            raise InputError(f"--latency {latency}: --network gives one already; leave one out")
        latency = after
    bits = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg])bit", rate)
    if bits is None or float(bits[1]) == 0:
        raise InputError(
            f"--network {rate}: not a rate above 0; write bits per second, such as 100gbit or "
            "25gbit,2us"
        )
    added = 0.0
    if latency is not None:
        delay = re.fullmatch(r"(\d+(?:\.\d+)?)(us|ms)", latency)
        if delay is None:
            raise InputError(f"--latency {latency}: not a time; write one such as 2us or 0.5ms")
        added = float(delay[1]) * _SECONDS[delay[2]]
    seconds_per_byte = 8 / (float(bits[1]) * _UNITS[bits[2]])
    return Network(rate if latency is None else f"{rate}, {latency}", seconds_per_byte, added)
