"""Emulated hosts: Linux network namespaces, joined by a bridge over links of a given speed.

What the workers of one machine say to each other then crosses a network that is as slow as the
one to be studied, and whose links can be cut. Memory, disks and cores stay shared.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.errors import InputError
from pipelines.network_config import NetworkConfig

__all__ = ["THIS_HOST", "Host", "emulated_hosts"]

_NAMESPACES = Path("/run/netns")
_MARK = "tandem"
_INTERFACE = "eth0"
_SUBNET = "10.77.0"
"""Seen inside the namespaces only: the bridge has no address, so it meets no network outside."""
_MOST_HOSTS = 250
_TBF = ("burst", "256kb", "latency", "200ms")
"""A bucket that lets a link of 1 Gbit/s reach 95 % of its rate, and a queue as long as a switch's
(measured)."""


@dataclass(frozen=True)
class Host:
    """Where worker processes run."""

    address: str = "127.0.0.1"
    namespace: str = ""
    """Empty: the machine's own network."""
    link: str = ""
    """The bridge's end of its link."""

    @property
    def prefix(self) -> list[str]:
        """What a command is preceded by to run there."""
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []

    @property
    def variables(self) -> dict[str, str]:
        """Which interface collectives are to take, where there is no other than one's own."""
        names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        return dict.fromkeys(names, _INTERFACE) if self.namespace else {}

    def cut(self) -> None:
        """Cut its link; nothing gets through in either direction until it is mended."""
        _ip("link", "set", self.link, "down")

    def mend(self) -> None:
        """Undo ``cut``."""
        _ip("link", "set", self.link, "up")


THIS_HOST = Host()


@contextmanager
def emulated_hosts(config: NetworkConfig) -> Iterator[list[Host]]:
    """The configured hosts, which are gone after the block; of one host, this machine.

    Raises:
        InputError: if they cannot be made here, saying what is missing.
    """
    if config.hosts == 1:
        yield [THIS_HOST]
        return
    _check(config)
    _remove_leftovers()
    bridge = f"{_MARK}{os.getpid()}"
    hosts: list[Host] = []
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("link", "set", bridge, "up")
        for number in range(config.hosts):
            host = Host(
                address=f"{_SUBNET}.{number + 1}",
                namespace=f"{_MARK}-{os.getpid()}-{number}",
                link=f"t{os.getpid()}h{number}",
            )
            hosts.append(host)
            _make(host, bridge, config)
        yield hosts
    finally:
        for host in hosts:
            # By itself, since it would go some time after its namespace, and its name is wanted
            # again by the next run.
            _ip("link", "del", host.link, check=False)
            _ip("netns", "del", host.namespace, check=False)
        _ip("link", "del", bridge, check=False)


def _check(config: NetworkConfig) -> None:
    if config.hosts > _MOST_HOSTS:
        raise InputError(f"network.hosts: at most {_MOST_HOSTS} can be emulated")
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        raise InputError(
            f"network.hosts: emulating hosts needs {' and '.join(missing)} (Debian: iproute2)"
        )
    if os.geteuid() != 0:
        raise InputError(
            "network.hosts: emulating hosts needs root, for network namespaces; "
            "run as root, or leave network.hosts at 1"
        )


def _make(host: Host, bridge: str, config: NetworkConfig) -> None:
    _ip("netns", "add", host.namespace)
    peer = ("peer", "name", _INTERFACE, "netns", host.namespace)
    _ip("link", "add", host.link, "type", "veth", *peer)
    _ip("link", "set", host.link, "master", bridge, "up")
    inside = ("-n", host.namespace)
    _ip(*inside, "address", "add", f"{host.address}/24", "dev", _INTERFACE)
    _ip(*inside, "link", "set", _INTERFACE, "up")
    _ip(*inside, "link", "set", "lo", "up")
    _shape((), host.link, config)
    _shape(inside, _INTERFACE, config)


def _shape(where: tuple[str, ...], device: str, config: NetworkConfig) -> None:
    """Shape what a device sends; both ends of a link together make both directions."""
    add = ("tc", *where, "qdisc", "add", "dev", device)
    place: tuple[str, ...] = ("root", "handle", "1:")
    if config.bandwidth:
        _call(*add, *place, "tbf", "rate", config.bandwidth, *_TBF)
        place = ("parent", "1:1", "handle", "2:")
    if config.latency:
        refused = _call(*add, *place, "netem", "delay", config.latency, check=False)
        if refused:
            raise InputError(
                f"network.latency: this kernel does not delay packets (netem: {refused}); "
                "leave it out"
            )


def _remove_leftovers() -> None:
    """Namespaces and bridges of launchers that were killed before they could remove them."""
    for namespace in _NAMESPACES.glob(f"{_MARK}-*-*"):
        pid = namespace.name.split("-")[1]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            _ip("netns", "del", namespace.name, check=False)
            _ip("link", "del", f"{_MARK}{pid}", check=False)


def _ip(*words: str, check: bool = True) -> None:
    _call("ip", *words, check=check)


def _call(*words: str, check: bool = True) -> str:
    """Run a command; returns what it complained of, if it failed and was allowed to."""
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return ""
    said = " ".join(ended.stderr.split())
    if check:
        raise InputError(f"network.hosts: `{' '.join(words)}` failed: {said}")
    return said
