import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import pod
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, WorkError
from pipelines.pod import Node
from pipelines.worker import Worker

HOST = "study-tf-node-0-{}.study-tf.tandem.svc.cluster.local"
REPORT = 'echo "$LOCAL_RANK $TF_CONFIG $*" >>"$REPORT"'


def pod_variables(index: int, nodes: int = 2, processes: int = 1) -> dict[str, str]:
    return {
        "JOB_COMPLETION_INDEX": str(index),
        "TANDEM_NODES": str(nodes),
        "TANDEM_PROCESSES_PER_NODE": str(processes),
    }


def node(index: int, **sizes: int) -> Node:
    return Node.from_environment(pod_variables(index, **sizes), HOST.format(index))


def test_every_pod_has_the_same_cluster_and_a_number_of_its_own() -> None:
    found = [json.loads(node(index).variables(0)["TF_CONFIG"]) for index in range(2)]

    workers = [f"{HOST.format(index)}:2222" for index in range(2)]
    assert [each["cluster"] for each in found] == [{"worker": workers}] * 2
    assert [each["task"] for each in found] == [{"type": "worker", "index": i} for i in range(2)]


def test_a_pods_processes_have_a_port_and_a_device_each_and_consecutive_ranks() -> None:
    found = [node(index, processes=2).variables(place) for index in range(2) for place in range(2)]

    assert [each["LOCAL_RANK"] for each in found] == ["0", "1", "0", "1"]
    assert json.loads(found[0]["TF_CONFIG"])["cluster"]["worker"] == [
        f"{HOST.format(index)}:{port}" for index in range(2) for port in (2222, 2223)
    ]
    workers = [Worker.from_environment(each) for each in found]
    assert [(worker.rank, worker.workers) for worker in workers] == [(i, 4) for i in range(4)]


@pytest.mark.parametrize(
    ("variables", "host", "message"),
    [
        ({"TANDEM_NODES": "2"}, HOST.format(0), "JOB_COMPLETION_INDEX: not set"),
        ({"JOB_COMPLETION_INDEX": "0"}, HOST.format(0), "TANDEM_NODES: not set"),
        (pod_variables(2), HOST.format(2), "TANDEM_NODES: 2, but this pod has number 2"),
        (pod_variables(1), HOST.format(0), "does not end in"),
        (pod_variables(1), "laptop", "JOB_COMPLETION_INDEX: 1, which the pod's name laptop"),
        (pod_variables(0, processes=0), HOST.format(0), "TANDEM_PROCESSES_PER_NODE: 0 is not"),
        (pod_variables(0) | {"TANDEM_NODES": "two"}, HOST.format(0), "two is not a number from 1"),
    ],
)
def test_what_does_not_fit_is_named(variables: dict[str, str], host: str, message: str) -> None:
    with pytest.raises(InputError, match="environment: ") as raised:
        Node.from_environment(variables, host)
    assert message in str(raised.value)


def test_a_pod_that_never_comes_up_is_named() -> None:
    with pytest.raises(WorkError, match=r"tandem-0\.invalid: no such host"):
        pod._await_names(["localhost", "tandem-0.invalid"], seconds=0)


def test_a_pod_waits_for_the_others_as_long_as_its_job_says(
    one_pod: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(pod, "_await_names", lambda hosts, seconds: waited.append(seconds))
    stand_in(one_pod, "exit 0")

    pod.main(["tf", "train"])
    monkeypatch.setenv("TANDEM_START_SECONDS", "2700")
    pod.main(["tf", "train"])

    assert waited == [600, 2700]


@pytest.fixture
def one_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process as a job's only pod, and a stand-in for TensorFlow that reports its place."""
    monkeypatch.setattr(socket, "getfqdn", lambda: "job-node-0-0.job")
    monkeypatch.setattr(pod, "_is_known", lambda host: True)
    monkeypatch.setenv("REPORT", str(tmp_path / "report"))
    monkeypatch.setenv("TANDEM_TF_PYTHON", str(tmp_path / "python"))
    for name, value in pod_variables(0, nodes=1, processes=2).items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def stand_in(folder: Path, program: str) -> None:
    (folder / "python").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "python").chmod(0o755)


def test_all_processes_of_a_pod_run_the_stage(one_pod: Path) -> None:
    stand_in(one_pod, REPORT)

    assert pod.main(["tf", "train", "--scaling", "weak"]) == 0

    lines = sorted((one_pod / "report").read_text().splitlines())
    assert [line.split()[0] for line in lines] == ["0", "1"]
    assert all(line.endswith("-m tf_pipeline train --scaling weak") for line in lines)
    assert '"index": 1' in lines[1]


@pytest.mark.parametrize(("end", "code"), [("exit 2", 2), ("kill -9 $$", 137)])
def test_one_failure_ends_the_pod_with_its_code(one_pod: Path, end: str, code: int) -> None:
    stand_in(one_pod, f'[ "$LOCAL_RANK" = 0 ] && exec sleep 600\n{end}')

    assert pod.main(["tf", "train"]) == code


def test_sigterm_reaches_every_process_which_may_save(tmp_path: Path) -> None:
    stand_in(tmp_path, f"trap '{REPORT}; exit 0' TERM; touch $READY.$LOCAL_RANK; sleep 600 & wait")
    named = "import socket; socket.getfqdn = lambda: 'localhost-0'; from pipelines import pod\n"
    program = (
        f"{named}pod._is_known = lambda host: True\nraise SystemExit(pod.main(['tf', 'train']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        env={
            **os.environ,
            **pod_variables(0, nodes=1, processes=2),
            "TANDEM_TF_PYTHON": str(tmp_path / "python"),
            "REPORT": str(tmp_path / "report"),
            "READY": str(tmp_path / "ready"),
        },
    )
    while len(list(tmp_path.glob("ready.*"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=60) == 0
    assert len((tmp_path / "report").read_text().splitlines()) == 2


def test_what_an_operator_has_said_already_is_left_alone(tmp_path: Path) -> None:
    stand_in(tmp_path, 'echo "$TF_CONFIG $*"')
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.pod", "tf", "train"],
        cwd=PROJECT_ROOT,
        env={**os.environ, "TF_CONFIG": "{}", "TANDEM_TF_PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{} -m tf_pipeline train\n"


@pytest.mark.parametrize("arguments", [[], ["tf"], ["torch", "train"]])
def test_wrong_usage_is_one_line(arguments: list[str]) -> None:
    with pytest.raises(InputError, match=r"usage: python -m pipelines\.pod tf STAGE"):
        pod.main(arguments)
