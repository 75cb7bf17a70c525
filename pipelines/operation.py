"""What an operator of a training run has to know of: processes, open ports, variables."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["survey"]


def survey(pids: Iterable[int], variables: Collection[str]) -> dict[str, float]:
    """The metrics of the processes that were started as ``pids``, and of all that these started.

    A port on which several listen counts once, and so does one for both kinds of addresses.
    ``variables`` are those that were set for such a process. Empty if all have ended.
    """
    processes: dict[int, psutil.Process] = {}
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            processes |= {each.pid: each for each in (root, *root.children(recursive=True))}
    ports: set[tuple[str, int]] = set()
    for process in processes.values():
        with suppress(psutil.Error, OSError):  # it has ended meanwhile
            network = str(Path(f"/proc/{process.pid}/ns/net").readlink())
            ports |= {
                (network, connection.laddr.port)
                for connection in process.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN
            }
    if not processes:
        return {}
    return {
        "processes": float(len(processes)),
        "listening_ports": float(len(ports)),
        "environment_variables": float(len(variables)),
    }
