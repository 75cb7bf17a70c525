"""Which processes a training run on this machine consists of, and how each knows its place."""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.hosts import THIS_HOST, Host
from pipelines.strategies import ONE_PROCESS_STRATEGIES, Framework

__all__ = ["Layout", "Task", "tasks_of"]


@dataclass(frozen=True)
class Layout:
    """How many processes train, on how many devices each, and how many serve them."""

    workers: int = 1
    """Processes that train."""
    replicas: int = 1
    """Copies of the model that each of them trains."""
    parameter_servers: int = 0

    @classmethod
    def of(cls, config: Config, framework: Framework, workers: int) -> "Layout":
        """The processes in which the configured strategy trains ``workers`` replicas."""
        strategy = config.strategy(framework)
        if strategy in ONE_PROCESS_STRATEGIES:
            return cls(replicas=workers)
        servers = config.tf.parameter_servers if strategy == "parameter_server" else 0
        return cls(workers=workers, parameter_servers=servers)

    @property
    def arguments(self) -> list[str]:
        """What the ``train`` stage must be told, since no environment variable says it."""
        return ["--replicas", str(self.replicas)] if self.replicas > 1 else []


@dataclass(frozen=True)
class Task:
    """One process of a training run."""

    name: str
    """Such as ``rank0`` or ``ps0``; its log is called by it."""
    rank: int
    variables: dict[str, str] = field(default_factory=dict)
    host: Host = THIS_HOST
    place: int | None = None
    """Its number among those that compute, each on cores of its own; None: it does not."""
    serves: bool = False
    """Whether it waits to be told what to do, and ends when the others have."""


def tasks_of(
    framework: Framework, layout: Layout, hosts: Sequence[Host] = (THIS_HOST,)
) -> Iterator[Task]:
    """The tasks in order of rank, each with the addresses of all.

    Consecutive workers share a host, as many on each; hosts beyond the workers stay empty.

    Raises:
        InputError: if the workers cannot be shared out equally.
    """
    hosts = hosts[: layout.workers]
    if layout.workers % len(hosts):
        raise InputError(
            f"network.hosts: {layout.workers} workers cannot be shared equally by "
            f"{len(hosts)} hosts"
        )
    if layout.parameter_servers:
        return _parameter_server_tasks(layout, hosts)
    return (_tf_tasks if framework == "tf" else _torch_tasks)(layout.workers, hosts)


def _torch_tasks(workers: int, hosts: Sequence[Host]) -> Iterator[Task]:
    """With what torchrun would set."""
    (port,) = _free_ports(1)
    local_workers = workers // len(hosts)
    for rank in range(workers):
        number, local_rank = divmod(rank, local_workers)
        variables = {
            "RANK": str(rank),
            "LOCAL_RANK": str(local_rank),
            "GROUP_RANK": str(number),
            "WORLD_SIZE": str(workers),
            "LOCAL_WORLD_SIZE": str(local_workers),
            "MASTER_ADDR": hosts[0].address,
            "MASTER_PORT": str(port),
            **hosts[number].variables,
        }
        yield Task(f"rank{rank}", rank, variables, hosts[number], place=rank)


def _tf_tasks(workers: int, hosts: Sequence[Host]) -> Iterator[Task]:
    places = _spread(workers, hosts)
    cluster = {"worker": _addresses(places)}
    for rank, host in enumerate(places):
        local_rank = rank % (workers // len(hosts))
        variables = _tf_config(cluster, "worker", rank, local_rank) | host.variables
        yield Task(f"rank{rank}", rank, variables, host, place=rank)


def _parameter_server_tasks(layout: Layout, hosts: Sequence[Host]) -> Iterator[Task]:
    places = {
        "chief": [hosts[0]],
        "worker": _spread(layout.workers, hosts),
        "ps": [hosts[index % len(hosts)] for index in range(layout.parameter_servers)],
    }
    addresses = iter(_addresses([host for each in places.values() for host in each]))
    cluster = {kind: [next(addresses) for _ in each] for kind, each in places.items()}
    rank = 0
    for kind, each in places.items():
        for index, host in enumerate(each):
            place = index if kind == "worker" else None
            local_rank = index % (layout.workers // len(hosts))
            name = kind if kind == "chief" else f"{kind}{index}"
            variables = _tf_config(cluster, kind, index, local_rank) | host.variables
            yield Task(name, rank, variables, host, place, serves=kind != "chief")
            rank += 1


def _spread(workers: int, hosts: Sequence[Host]) -> list[Host]:
    return [hosts[rank // (workers // len(hosts))] for rank in range(workers)]


def _tf_config(
    cluster: dict[str, list[str]], kind: str, index: int, local_rank: int
) -> dict[str, str]:
    described = {"cluster": cluster, "task": {"type": kind, "index": index}}
    return {
        "TF_CONFIG": json.dumps(described),
        "LOCAL_RANK": str(local_rank),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1"),
    }


def _addresses(hosts: Sequence[Host]) -> list[str]:
    ports = _free_ports(len(hosts))
    return [f"{host.address}:{port}" for host, port in zip(hosts, ports, strict=True)]


def _free_ports(count: int) -> list[int]:
    """Ports of this machine that were free a moment ago, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind((THIS_HOST.address, 0))
        return [int(opened.getsockname()[1]) for opened in sockets]
