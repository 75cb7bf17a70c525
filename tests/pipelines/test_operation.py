import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipelines.operation import survey

LISTENS = """
import os, socket, subprocess, sys
first, second, silent = socket.socket(), socket.socket(), socket.socket()
for each in (first, second, silent):
    each.bind(("127.0.0.1", 0))
first.listen()
second.listen()
child = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=[first.fileno()])
print("ready", flush=True)
input()
child.kill()
"""


@pytest.fixture
def listener() -> Iterator["subprocess.Popen[str]"]:
    """Listens on two ports, of which its one child shares one."""
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate("\n")


def test_processes_with_their_children_and_the_ports_that_they_listen_on_are_counted(
    listener: "subprocess.Popen[str]",
) -> None:
    assert survey([listener.pid], ["RANK", "WORLD_SIZE"]) == {
        "processes": 2,
        "listening_ports": 2,
        "environment_variables": 2,
    }


def test_of_processes_that_have_ended_nothing_is_said() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    assert survey([ended.pid], ["RANK"]) == {}
