import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.errors import InputError
from pipelines.hosts import THIS_HOST, Host, emulated_hosts
from pipelines.network_config import NetworkConfig

SENT_BYTES = 4_000_000
RECEIVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 9000))
print("ready", flush=True)
connection, _ = server.accept()
received = 0
while chunk := connection.recv(1 << 20):
    received += len(chunk)
print(received)
"""
SEND = f"""
import socket, sys
connection = socket.create_connection((sys.argv[1], 9000), timeout=60)
connection.sendall(bytes({SENT_BYTES}))
"""
REACH = """
import socket, sys
socket.create_connection((sys.argv[1], 9001), timeout=1)
"""


def on(host: Host, program: str, argument: str) -> list[str]:
    return [*host.prefix, sys.executable, "-c", program, argument]


def namespaces() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_one_host_is_this_machine_as_it_is() -> None:
    with emulated_hosts(NetworkConfig()) as hosts:
        assert hosts == [THIS_HOST]
    assert THIS_HOST.prefix == []
    assert THIS_HOST.variables == {}


def test_a_run_says_what_network_it_was_on() -> None:
    assert NetworkConfig().describe() == "real"
    assert NetworkConfig(hosts=2).describe() == "emulated: 2 hosts, unshaped"
    shaped = NetworkConfig(hosts=4, bandwidth="1gbit", latency="2ms")
    assert shaped.describe() == "emulated: 4 hosts, 1gbit, 2ms"


@pytest.mark.parametrize(
    "wrong",
    [
        {"bandwidth": "1gbit"},
        {"hosts": 2, "bandwidth": "fast"},
        {"hosts": 2, "latency": "2"},
        {"hosts": 0},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NetworkConfig.model_validate(wrong)


def test_without_root_hosts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda tool: f"/sbin/{tool}")

    with (
        pytest.raises(InputError, match=r"^network\.hosts: emulating hosts needs root"),
        emulated_hosts(NetworkConfig(hosts=2)),
    ):
        pass


def test_without_the_tools_hosts_are_refused_and_the_package_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)

    with (
        pytest.raises(InputError, match=r"needs ip and tc \(Debian: iproute2\)$"),
        emulated_hosts(NetworkConfig(hosts=2)),
    ):
        pass


@pytest.mark.network_namespaces
def test_hosts_reach_each_other_no_faster_than_their_links() -> None:
    with emulated_hosts(NetworkConfig(hosts=2, bandwidth="20mbit")) as (first, second):
        receiver = subprocess.Popen(
            on(first, RECEIVE, first.address), stdout=subprocess.PIPE, text=True
        )
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        started = time.perf_counter()
        subprocess.run(on(second, SEND, first.address), check=True)
        received = receiver.communicate(timeout=60)[0]
        seconds = time.perf_counter() - started

    assert int(received) == SENT_BYTES
    # The bucket lets its 256 KiB through at once, on either side of the bridge.
    assert (SENT_BYTES - 2 * 256 * 1024) * 8 / seconds < 20e6


@pytest.mark.network_namespaces
def test_a_cut_link_lets_nothing_through_until_it_is_mended() -> None:
    def said(first: Host, second: Host) -> str:
        ended = subprocess.run(
            on(second, REACH, first.address), capture_output=True, text=True, check=False
        )
        return ended.stderr.strip().splitlines()[-1]

    with emulated_hosts(NetworkConfig(hosts=2)) as (first, second):
        reached = said(first, second)
        first.cut()
        lost = said(first, second)
        first.mend()
        again = said(first, second)

    assert "refused" in reached  # nobody listens, but the host answered
    assert "refused" not in lost
    assert "refused" in again


@pytest.mark.network_namespaces
def test_nothing_of_the_hosts_is_left_even_after_a_failure() -> None:
    before = namespaces()

    with pytest.raises(ZeroDivisionError), emulated_hosts(NetworkConfig(hosts=3)):
        assert len(namespaces() - before) == 3
        raise ZeroDivisionError

    assert namespaces() == before
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert f"tandem{os.getpid()}" not in links


@pytest.mark.network_namespaces
def test_hosts_can_be_made_again_at_once() -> None:
    for _ in range(8):
        with emulated_hosts(NetworkConfig(hosts=2)) as hosts:
            assert len(hosts) == 2


@pytest.mark.network_namespaces
def test_what_a_killed_launcher_left_is_removed() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    leftover = f"tandem-{gone.pid}-0"
    subprocess.run(["ip", "netns", "add", leftover], check=True)

    with emulated_hosts(NetworkConfig(hosts=2)):
        assert leftover not in namespaces()
