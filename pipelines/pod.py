"""``python -m pipelines.pod tf ARGUMENTS``: one node of a job whose pods know only their place.

Kubeflow Trainer has a policy for torchrun and none for TensorFlow. Under its plain one a pod has
its number among the job's pods in ``JOB_COMPLETION_INDEX``, and a host name that ends in that
number; a headless service makes the others' names known. How many there are comes in
``TANDEM_NODES``, how many processes each starts in ``TANDEM_PROCESSES_PER_NODE``, and how long the
other pods may take to be known to the cluster's DNS in ``TANDEM_START_SECONDS``. From these every
process gets the ``TF_CONFIG`` that ``tf.distribute`` reads, as torchrun gives its processes
``RANK`` and the rest.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from pipelines.environments import find_python
from pipelines.errors import InputError, WorkError
from pipelines.stage import run_stage

__all__ = ["Node", "main"]

_FIRST_PORT = 2222
"""Of a node's first process, as TensorFlow's own examples have it; the others follow."""
_START_SECONDS = "600"
"""torchrun's own patience."""
_POLL_SECONDS = 0.2
_USAGE = "usage: python -m pipelines.pod tf STAGE [OPTION ...]"


@dataclass(frozen=True)
class Node:
    """This pod among those of its job."""

    index: int
    hosts: tuple[str, ...]
    """Host names of all pods, in order of their numbers."""
    processes: int = 1
    """Worker processes in each pod."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], host: str) -> "Node":
        """The node that the variables describe, in the pod of the full name ``host``.

        Raises:
            InputError: if a variable is missing, or contradicts another or the pod's name.
        """
        index = _number(environment, "JOB_COMPLETION_INDEX", at_least=0)
        nodes = _number(environment, "TANDEM_NODES", at_least=1)
        processes = _number(environment, "TANDEM_PROCESSES_PER_NODE", at_least=1, default="1")
        if index >= nodes:
            raise InputError(
                f"environment: TANDEM_NODES: {nodes}, but this pod has number {index}; set it to "
                "the training job's number of nodes"
            )
        name, dot, service = host.partition(".")
        stem, _, last = name.rpartition("-")
        if last != str(index) or not stem:
            raise InputError(
                f"environment: JOB_COMPLETION_INDEX: {index}, which the pod's name {host} does not "
                "end in; start it as a job of a JobSet, whose pods have such names"
            )
        return cls(index, tuple(f"{stem}-{i}{dot}{service}" for i in range(nodes)), processes)

    def variables(self, local_rank: int) -> dict[str, str]:
        """What one of the node's processes finds in its environment."""
        workers = [
            f"{host}:{_FIRST_PORT + place}"
            for host in self.hosts
            for place in range(self.processes)
        ]
        task = {"type": "worker", "index": self.index * self.processes + local_rank}
        return {
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": task}),
            "LOCAL_RANK": str(local_rank),
        }


def main(arguments: Sequence[str]) -> int:
    """Run the stage in every process of this node; the first exit code that is not 0, or 0.

    What the processes print goes where this one's output goes. SIGTERM is passed on to them, and
    when one fails the others are ended.
    """
    if len(arguments) < 2 or arguments[0] != "tf":
        raise InputError(_USAGE)
    command = [str(find_python("tf")), "-m", "tf_pipeline", *arguments[1:]]
    if "TF_CONFIG" in os.environ:  # an operator has said it all, as Kubeflow's TFJob does
        os.execv(command[0], command)
    node = Node.from_environment(os.environ, socket.getfqdn())
    patience = _number(os.environ, "TANDEM_START_SECONDS", at_least=1, default=_START_SECONDS)
    _await_names(node.hosts, patience)
    processes = [
        subprocess.Popen(command, env={**os.environ, **node.variables(place)})
        for place in range(node.processes)
    ]

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    try:
        return _first_failure(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _first_failure(processes: list["subprocess.Popen[bytes]"]) -> int:
    running = list(processes)
    while running:
        for process in running:
            if process.poll() is not None:
                running.remove(process)
                if process.returncode != 0:
                    # A shell's way to say by which signal it ended.
                    return (
                        process.returncode if process.returncode > 0 else 128 - process.returncode
                    )
                break
        else:
            time.sleep(_POLL_SECONDS)
    return 0


def _await_names(hosts: Sequence[str], seconds: float) -> None:
    """Wait until every pod can be found, since TensorFlow takes an unknown name as final.

    Raises:
        WorkError: if one cannot be found in time.
    """
    deadline = time.monotonic() + seconds
    missing = [host for host in hosts if not _is_known(host)]
    while missing:
        if time.monotonic() > deadline:
            raise WorkError(
                f"{missing[0]}: no such host after {seconds:.0f} s; was its pod started?"
            )
        time.sleep(_POLL_SECONDS)
        missing = [host for host in missing if not _is_known(host)]


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        return False
    return True


def _number(
    environment: Mapping[str, str], name: str, *, at_least: int, default: str | None = None
) -> int:
    given = environment.get(name, default)
    if given is None:
        raise InputError(f"environment: {name}: not set; the training runtime has to")
    try:
        number = int(given)
    except ValueError:
        number = at_least - 1
    if number < at_least:
        raise InputError(f"environment: {name}: {given} is not a number from {at_least} up")
    return number


if __name__ == "__main__":
    run_stage(lambda: sys.exit(main(sys.argv[1:])))
