"""Training jobs, through a small server in Kubernetes' place and its real client."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from kubernetes import client as kubernetes
from typer.testing import CliRunner

from pipelines.cli.commands import app
from pipelines.cluster import Layout
from pipelines.cluster_config import CLUSTER_VARIABLE
from pipelines.config import Config
from pipelines.errors import (
    DivergedError,
    InputError,
    PreemptedError,
    UnansweredError,
    WorkError,
)
from pipelines.launch import launch
from pipelines.preemption import Preemption
from pipelines.submit import (
    earlier_jobs,
    job_launcher,
    job_runner,
    kubernetes_api,
    patience,
    rank0_log,
    refused_pods,
)
from pipelines.submit.job_runner import JobListener, run_job
from pipelines.submit.kubernetes_api import KubernetesApi
from pipelines.submit.train import train_on_cluster
from pipelines.submit.training_job import (
    WORK_LABEL,
    JobRequest,
    build_job,
    job_name,
    kind_of,
)
from pipelines.training_run import Listener
from tests.json_handler import JsonHandler

EVENT = "::tandem "


def event(**said: Any) -> str:
    return EVENT + json.dumps(said)


@dataclass
class Cluster:
    """What the server does with a job, poll by poll."""

    log: list[str] = field(default_factory=lambda: ["hello"])
    """Rank 0's lines; each attempt at a job has its own where ``logs`` is given."""
    logs: list[list[str]] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Rank 0's last lines, said only once its job has ended: its pod is then still saving."""
    fails: bool = False
    fails_once: bool = False
    """Whether the first job fails, and no other."""
    failure: str = "JobsFailed"
    """The reason that a job has failed for."""
    exit_code: int = 1
    reason: str = "Error"
    polls_to_run: int = 1
    polls_to_end: int = 3
    failures: int = 0
    """From a job's creation on so many requests are answered with 500 before it recovers."""
    away: list[int] = field(default_factory=list)
    """How the next questions about a job are answered: a status, or 0, a connection that breaks."""
    delete_status: int = 200
    breaks_log: bool = False
    """Whether the connection that follows a log breaks once, after its first line."""
    refusal: tuple[int, str] | None = None
    list_status: int = 200
    """With which a list of jobs is answered."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    polls: int = 0
    evicted_at: int | None = None
    """The poll at which a queue takes the job back; two later it is let in again, as other pods."""
    second_log: list[str] = field(default_factory=list)
    """Rank 0's, in its second life."""
    keeps_names: bool = False
    """Whether the pods of both lives are called the same."""
    queued: bool = False
    polls_to_go: int = 0
    """So often a deleted job's pods are still there."""
    deletes_first: bool = False
    """Whether an earlier attempt's job is deleted before the next one begins."""
    refuses_pods: bool = False
    disruption: str = ""
    """Of all pods from their first day on; ``Evicted`` is a pod's own reason, others a condition's.
    """
    pods_go: bool = False
    """Whether no pod is left once a job has ended."""
    warnings: list[dict[str, Any]] | None = None
    """Events of Kubernetes'; None: the account may not see them."""

    @contextmanager
    def running(self) -> Iterator[KubernetesApi]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        configuration = kubernetes.Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        try:
            yield KubernetesApi("tandem", configuration)
        finally:
            server.shutdown()
            server.server_close()

    @property
    def is_evicted(self) -> bool:
        return self.evicted_at is not None and 0 <= self.polls - self.evicted_at < 2

    @property
    def is_second_life(self) -> bool:
        return self.evicted_at is not None and self.polls >= self.evicted_at + 2

    @property
    def phase(self) -> str:
        if self.polls < self.polls_to_run:
            return "Pending"
        if self.polls < self.polls_to_end:
            return "Running"
        failed = self.fails or (self.fails_once and len(self.jobs) == 1)
        return "Failed" if failed else "Succeeded"


def _handler(state: Cluster) -> type[JsonHandler]:
    class Handler(JsonHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            state.requests.append(("GET", parts.path))
            if state.failures > 0 and state.jobs:
                state.failures -= 1
                self.say(500, {"message": "etcd is away"})
            elif "labelSelector" in query and not parts.path.endswith("/pods"):
                found = {"items": _jobs(state, query["labelSelector"]), "message": "etcd is slow"}
                self.say(state.list_status, found)
            elif parts.path.endswith("/events"):
                assert query["fieldSelector"] == "type=Warning,involvedObject.kind!=Pod"
                if state.warnings is None:
                    self.say(403, {"message": "events is forbidden"})
                else:
                    self.say(200, {"items": state.warnings})
            elif parts.path.endswith("/log"):
                self._log(query)
            elif parts.path.endswith("/pods"):
                self.say(200, {"items": _pods(state, query["labelSelector"])})
            elif state.away:
                self.away(state.away.pop(0))
            else:
                self.say(200, _job(state, parts.path.rpartition("/")[2]))

        def away(self, status: int) -> None:
            if status:
                self.say(status, {"message": "etcd is away"})
            else:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def do_POST(self) -> None:
            body = json.loads(self.body())
            state.requests.append(("POST", self.path))
            if state.refusal:
                self.say(state.refusal[0], {"message": state.refusal[1]})
                return
            name = body["metadata"]["name"]
            if name in state.jobs:
                self.say(409, {"message": f"{name} already exists"})
                return
            state.jobs[name], state.polls = body, 0
            if state.logs:
                state.log = state.logs.pop(0)
            if state.failures > 0:  # it was made, but nobody was told
                state.failures -= 1
                self.say(500, {"message": "etcd is away"})
                return
            self.say(201, body)

        def do_DELETE(self) -> None:
            self.body()
            name = urlsplit(self.path).path.rpartition("/")[2]
            state.requests.append(("DELETE", self.path))
            if state.delete_status != 200:
                self.away(state.delete_status)
                return
            state.deleted.append(name)
            self.say(200, {"status": "Success"})

        def _log(self, query: dict[str, str]) -> None:
            if query.get("follow") != "True":
                lines = [*state.log, *state.late][-int(query["tailLines"]) :]
                self.say(200, "".join(f"{line}\n" for line in lines), "text/plain")
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number, line in enumerate(state.second_log if state.is_second_life else state.log):
                chunk = f"2026-01-01T00:00:{number:02}.000000000Z {line}\n".encode()
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.flush()
                if state.breaks_log:
                    state.breaks_log = False
                    self.close_connection = True
                    return
            for number, line in enumerate(state.late, len(state.log)):
                while state.phase in ("Pending", "Running"):
                    time.sleep(0.01)
                time.sleep(0.1)
                chunk = f"2026-01-01T00:00:{number:02}.000000000Z {line}\n".encode()
                self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    return Handler


def _job(state: Cluster, name: str) -> dict[str, Any]:
    state.polls += 1
    job = state.jobs[name]
    kind = {"Succeeded": kind_of(job).succeeded, "Failed": "Failed"}.get(state.phase)
    conditions = [{"type": "Created", "status": "True", "reason": "x", "message": "x"}]
    if state.is_evicted or (state.queued and state.phase == "Pending"):
        conditions.append({"type": "Suspended", "status": "True", "reason": "x", "message": "x"})
    if kind:
        why = {"reason": state.failure, "message": "1 of 2 pods failed"}
        conditions.append({"type": kind, "status": "True", **why})
    return {**job, "status": {"conditions": conditions}}


def _jobs(state: Cluster, selector: str) -> list[dict[str, Any]]:
    label, _, value = selector.partition("=")
    return [
        job
        for name, job in state.jobs.items()
        if name not in state.deleted and job["metadata"]["labels"].get(label) == value
    ]


def _pods(state: Cluster, selector: str) -> list[dict[str, Any]]:
    label, _, name = selector.partition("=")
    if label == WORK_LABEL:
        return _earlier_pods(state, name)
    kind = kind_of(state.jobs[name])
    assert label == kind.job_label
    gone = state.pods_go and state.phase in ("Failed", "Succeeded")
    if gone or state.is_evicted or state.refuses_pods:
        return []
    return [_pod(state, name, kind, rank) for rank in range(2)]


def _earlier_pods(state: Cluster, work: str) -> list[dict[str, Any]]:
    """Those of deleted jobs, which end after a while, and of jobs that have ended."""
    state.polls_to_go -= 1
    return [
        {
            "metadata": {"name": f"{name}-node-0-0"},
            "status": {"phase": "Running" if name in state.deleted else "Failed"},
        }
        for name, job in state.jobs.items()
        if job["metadata"]["labels"][WORK_LABEL] == work
        and (name not in state.deleted or state.polls_to_go >= 0)
    ]


def _pod(state: Cluster, name: str, kind: Any, rank: int) -> dict[str, Any]:
    labels = {key: value if rank == 0 else "other" for key, value in kind.rank0.items()}
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    times = {
        "startedAt": f"2026-01-01T00:00:0{rank}Z",
        "finishedAt": f"2026-01-01T00:00:0{9 - rank}Z",
    }
    ended: dict[str, Any] = {"terminated": {"exitCode": 0, **times}}
    if state.phase == "Failed":
        ended["terminated"] |= {"exitCode": state.exit_code, "reason": state.reason}
    container = {"Pending": waiting, "Running": {"running": {}}}.get(state.phase, ended)
    status = {"name": "node", "image": "x", "imageID": "x", "ready": True, "restartCount": 0}
    disrupted: dict[str, Any] = {}
    if state.disruption == "Evicted":
        disrupted = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    elif state.disruption:
        condition = {"type": "DisruptionTarget", "status": "True", "message": "by eviction API"}
        disrupted = {"conditions": [{**condition, "reason": state.disruption}]}
    of_node = {"containerStatuses": [{**status, "state": container}], **disrupted}
    life = "second" if state.is_second_life else "first"
    called = f"{name}-node-0-{rank}"
    if state.is_second_life and not state.keeps_names:
        called += "-xyz"
    return {
        "metadata": {"name": called, "uid": f"{life}-{rank}", "labels": labels},
        "status": {"phase": state.phase, **of_node},
    }


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(earlier_jobs, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(rank0_log, "_SECONDS_BETWEEN", 0.02)


def job_request(output: str = "/mnt/tandem/cell") -> JobRequest:
    return JobRequest(job_name("study"), "torch", Layout(workers=2), ["train", "--output", output])


@pytest.fixture
def run(load_submitted: Callable[..., Config]) -> Callable[..., float]:
    def run(state: Cluster, listener: JobListener = JobListener(), *overrides: str) -> float:  # noqa: B008
        cluster = load_submitted(*overrides).cluster
        request = job_request()
        with state.running() as api:
            return run_job(api, cluster, build_job(cluster, request), listener)

    return run


@pytest.mark.parametrize("api", ["trainer", "training-operator"])
def test_a_job_is_created_told_as_it_goes_and_removed_when_done(
    run: Callable[..., float], api: str
) -> None:
    state = Cluster(log=["hello", event(event="step", step=7, steps=9), "bye"])
    lines: list[str] = []
    events: list[dict[str, Any]] = []
    states: list[str] = []

    listener = JobListener(events.append, lines.append, states.append)
    run(state, listener, f"cluster.job_api={api}")

    [name] = state.jobs
    assert lines == ["hello", "bye"]
    assert events == [{"event": "step", "step": 7, "steps": 9}]
    assert "2 of 2 pods running" in states
    assert state.deleted == [name]


def test_a_log_whose_connection_breaks_is_told_once_and_whole(run: Callable[..., float]) -> None:
    state = Cluster(log=["one", "two", "three"], breaks_log=True)
    lines: list[str] = []

    run(state, JobListener(on_line=lines.append))

    assert lines == ["one", "two", "three"]


def test_a_cluster_that_fails_twice_and_recovers_makes_one_job(run: Callable[..., float]) -> None:
    state = Cluster(failures=2)

    run(state)

    assert len(state.jobs) == 1
    assert [method for method, _ in state.requests].count("POST") == 2


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own, which take seconds."""
    monkeypatch.setattr(kubernetes_api, "_ATTEMPTS", 0)
    monkeypatch.setattr(patience, "_SECONDS_BETWEEN", 0.02)


@pytest.mark.parametrize("status", [0, 429, 503, 504])
def test_a_cluster_that_is_away_for_a_while_takes_no_job_with_it(
    run: Callable[..., float], no_retries: None, status: int
) -> None:
    state, states = Cluster(away=[status] * 3), list[str]()

    run(state, JobListener(on_state=states.append))

    [name] = state.jobs
    assert state.deleted == [name]
    [told] = [each for each in states if "asking again" in each]
    assert told.endswith("; asking again, for 10 minutes at most")


def test_who_gives_a_cluster_up_says_what_may_run_on(
    run: Callable[..., float], no_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_MINUTES", 0.001)
    state = Cluster(away=[503] * 1000)

    with pytest.raises(WorkError) as failure:
        run(state)

    [name] = state.jobs
    assert str(failure.value) == (
        "the cluster does not say how the job goes: 503 etcd is away; the job may run on: "
        f"kubectl --namespace tandem delete trainjob {name}"
    )
    assert state.deleted == []


def test_a_job_that_ended_well_and_cannot_be_removed_has_ended_well(
    run: Callable[..., float], no_retries: None
) -> None:
    state, states = Cluster(delete_status=503), list[str]()

    run(state, JobListener(on_state=states.append))

    [name] = state.jobs
    assert states[-1] == f"job {name} was not deleted: 503 etcd is away"


def test_a_job_that_could_not_be_ended_says_how_to_end_it(
    load_submitted: Callable[..., Config], no_retries: None
) -> None:
    state, preemption = Cluster(polls_to_end=10_000, delete_status=503), Preemption()
    request = job_request()

    def asked(line: str) -> None:
        preemption.asked = True

    with state.running() as api, pytest.raises(WorkError) as failure:
        cluster = load_submitted().cluster
        job = build_job(cluster, request)
        run_job(api, cluster, job, JobListener(on_line=asked), preemption=preemption)

    assert str(failure.value).endswith(f"kubectl --namespace tandem delete trainjob {request.name}")


def test_a_job_that_fails_says_which_pod_how_and_why(run: Callable[..., float]) -> None:
    log = ["Traceback (most recent call last):", "ValueError: no such column", "bye"]
    state = Cluster(log=log, fails=True)

    with pytest.raises(WorkError) as failure:
        run(state)

    [name] = state.jobs
    assert str(failure.value) == (
        f"pod {name}-node-0-1 ended with exit code 1: ValueError: no such column (job {name})"
    )
    assert state.deleted == []


TORCHRUN = Path(__file__).with_name("torchrun.txt").read_text()
"""What torchrun 2.13 prints once one of a pod's two workers has ended with ``CODE``; paths, times
and process ids are changed."""


def torchrun_log(worker: list[str], code: int) -> list[str]:
    return [*worker, *TORCHRUN.replace("CODE", str(code)).splitlines()]


def test_a_worker_of_torchruns_says_itself_why_it_failed(run: Callable[..., float]) -> None:
    log = ["Traceback (most recent call last):", "RuntimeError: CUDA out of memory"]
    state = Cluster(log=torchrun_log(log, 1), fails=True)

    with pytest.raises(WorkError, match="ended with exit code 1: RuntimeError: CUDA out of memory"):
        run(state)


def test_input_that_a_worker_of_torchruns_refuses_is_an_input_error(
    run: Callable[..., float],
) -> None:
    state = Cluster(log=torchrun_log(["error: data.label: no such column"], 2), fails=True)

    with pytest.raises(InputError, match=r"^data\.label: no such column$"):
        run(state)


def test_a_worker_of_torchruns_that_was_killed_has_not_said_why(run: Callable[..., float]) -> None:
    state = Cluster(log=torchrun_log(["step 3"], -9), fails=True, reason="OOMKilled")

    with pytest.raises(WorkError, match=r"ended with SIGKILL, OOMKilled \(job "):
        run(state)


def test_a_pod_that_took_too_much_memory_says_so(run: Callable[..., float]) -> None:
    with pytest.raises(WorkError, match="exit code 137, OOMKilled"):
        run(Cluster(fails=True, exit_code=137, reason="OOMKilled"))


def test_a_worker_that_refuses_its_input_is_an_input_error(run: Callable[..., float]) -> None:
    state = Cluster(log=["error: data.label: no such column"], fails=True, exit_code=2)

    with pytest.raises(InputError, match=r"^data\.label: no such column$"):
        run(state)


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (404, "the server could not find it", "cluster.job_api"),
        (403, 'user "me" cannot create trainjobs', "cannot create trainjobs"),
        (422, "spec.trainer.image: Required", "spec.trainer.image"),
    ],
)
def test_what_the_cluster_refuses_is_one_line(
    run: Callable[..., float], status: int, message: str, said: str
) -> None:
    with pytest.raises(InputError) as refusal:
        run(Cluster(refusal=(status, message)))

    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_where_earlier_attempts_cannot_be_asked_for_nothing_is_created(
    run: Callable[..., float], no_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_MINUTES", 0.001)
    state = Cluster(list_status=504)

    with pytest.raises(WorkError, match=r"^the cluster does not list .*: 504 etcd is slow"):
        run(state)
    assert not state.jobs


def test_a_job_without_pods_is_given_up_with_what_it_waits_for(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(polls_to_run=10_000, polls_to_end=20_000)
    clock = SimpleNamespace(monotonic=lambda: 10_000.0 * state.polls, sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)

    with pytest.raises(WorkError, match=r"cluster\.start_minutes.*ContainerCreating"):
        run(state)
    assert state.deleted == [*state.jobs]


def test_waiting_in_a_queue_is_told_and_counts_for_nothing(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(queued=True, polls_to_run=4, polls_to_end=6)
    states: list[str] = []
    clock = SimpleNamespace(monotonic=lambda: 10_000.0 * min(state.polls, 3), sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)

    run(state, JobListener(on_state=states.append))

    assert states[0] == "0 of 2 pods running (ContainerCreating, in a queue)"


def test_a_jobs_seconds_begin_when_its_first_worker_runs(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(polls_to_run=5, polls_to_end=8)
    clock = SimpleNamespace(monotonic=lambda: 10.0 * state.polls, sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)

    assert run(state) == 30.0


NOW = "2026-01-01T00:00:30Z"
POD = 'Error creating: pods "study-0000-node-0-0-x7k2p" is forbidden: '


def warning(kind: str, name: str, when: str, reason: str, message: str) -> dict[str, Any]:
    return {
        "metadata": {"name": f"{name}.{reason}", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": kind, "name": name},
        "type": "Warning",
        "lastTimestamp": when,
        "reason": reason,
        "message": message,
    }


QUOTA = POD + "exceeded quota: tandem, requested: pods=1,\n used: pods=9, limited: pods=9"
ADMISSION = POD + 'violates PodSecurity "restricted:latest": runAsNonRoot != true'


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (QUOTA, "exceeded quota: tandem, requested: pods=1, used: pods=9, limited: pods=9"),
        (ADMISSION, 'violates PodSecurity "restricted:latest": runAsNonRoot != true'),
        ("no such runtime", "no such runtime"),
    ],
    ids=["quota", "admission", "anything else"],
)
def test_why_a_job_gets_no_pods_is_told_while_it_waits_and_when_it_is_given_up(
    load_submitted: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    told: str,
) -> None:
    request, states = job_request(), list[str]()
    state = Cluster(polls_to_run=10_000, polls_to_end=20_000, refuses_pods=True)
    state.warnings = [
        warning("JobSet", request.name, "2026-01-01T00:00:10Z", "Older", "no longer so"),
        warning("Job", f"{request.name}-node-0", NOW, "FailedCreate", message),
        warning("Job", "another-node-0", "2026-01-01T00:00:50Z", "FailedCreate", "another's"),
    ]
    clock = SimpleNamespace(monotonic=lambda: 2_000.0 * state.polls, sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)
    cluster = load_submitted().cluster

    with state.running() as api, pytest.raises(WorkError) as failure:
        run_job(api, cluster, build_job(cluster, request), JobListener(on_state=states.append))

    assert states == [f"no pods yet (FailedCreate: {told})"]
    assert str(failure.value).endswith(f"(cluster.start_minutes): {states[0]}")


def test_where_events_may_not_be_seen_a_job_waits_as_ever(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_pods, "_SECONDS_BETWEEN", 0.0)
    state = Cluster(polls_to_run=10_000, polls_to_end=20_000, refuses_pods=True)
    clock = SimpleNamespace(monotonic=lambda: 1_000.0 * state.polls, sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)

    with pytest.raises(WorkError, match=r"\(cluster\.start_minutes\): no pods yet$"):
        run(state)
    assert [path for _, path in state.requests if path.endswith("/events")] == [
        "/api/v1/namespaces/tandem/events"
    ]


@pytest.fixture
def again(load_submitted: Callable[..., Config]) -> Callable[..., list[str]]:
    """A second attempt at a cell whose first one's job is on the cluster; what it told."""

    def again(
        state: Cluster, preemption: Preemption | None = None, status: Any = None, *overrides: str
    ) -> list[str]:
        cluster, states = load_submitted(*overrides).cluster, list[str]()
        first, other = job_request(), job_request("/mnt/tandem/another")
        state.jobs = {
            each.name: {**build_job(cluster, each), "status": status or {}}
            for each in (first, other)
        }
        if state.deletes_first:
            state.deleted.append(first.name)
        second = build_job(cluster, job_request("/mnt/tandem/cell-attempt2"))
        with state.running() as api:
            run_job(
                api, cluster, second, JobListener(on_state=states.append), preemption=preemption
            )
        return states

    return again


@pytest.mark.parametrize("api", ["trainer", "training-operator"])
def test_what_an_earlier_attempt_left_running_is_gone_before_the_next_begins(
    again: Callable[..., list[str]], api: str
) -> None:
    state = Cluster(polls_to_go=3)

    states = again(state, None, None, f"cluster.job_api={api}")

    left, _, own = state.jobs
    assert states[:2] == [
        f"job {left} of an earlier attempt is ended first",
        f"waiting for the pods of an earlier attempt ({left}-node-0-0)",
    ]
    assert state.deleted == [left, own]
    before = state.requests[: [method for method, _ in state.requests].index("POST")]
    assert [path.rpartition("/")[2] for _, path in before[1:]] == [left, *["pods"] * 4]


def test_an_earlier_attempt_that_has_failed_is_left_to_be_looked_at(
    again: Callable[..., list[str]],
) -> None:
    state = Cluster()

    again(state, None, {"conditions": [{"type": "Failed", "status": "True"}]})

    assert state.deleted == [[*state.jobs][-1]]


def test_pods_of_a_job_that_somebody_has_deleted_are_waited_for_too(
    again: Callable[..., list[str]],
) -> None:
    state = Cluster(polls_to_go=3, deletes_first=True)

    states = again(state)

    left, _, own = state.jobs
    assert states[0] == f"waiting for the pods of an earlier attempt ({left}-node-0-0)"
    assert state.deleted == [left, own]


def test_pods_that_do_not_go_fail_the_next_attempt_and_say_what_to_do(
    again: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(polls_to_go=10_000)
    clock = SimpleNamespace(
        monotonic=lambda: 100.0 * (10_000 - state.polls_to_go), sleep=time.sleep
    )
    monkeypatch.setattr(earlier_jobs, "time", clock)

    with pytest.raises(WorkError) as failure:
        again(state)

    left, _ = state.jobs
    assert str(failure.value) == (
        "pods of an earlier attempt do not end, 420 s after its job was deleted "
        f"({left}-node-0-0); where their node is gone for good, kubectl delete pod --force"
    )
    assert "POST" not in [method for method, _ in state.requests]


@pytest.mark.timeout(60)
def test_who_is_asked_to_end_does_not_wait_for_an_earlier_attempt(
    again: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_jobs, "_POLL_SECONDS", 600.0)
    state = Cluster(polls_to_go=10_000)

    with Preemption().watched() as preemption, pytest.raises(PreemptedError):
        asked = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
        asked.start()
        again(state, preemption)
    assert "POST" not in [method for method, _ in state.requests]


@pytest.mark.timeout(60)
def test_who_is_asked_to_end_while_he_waits_deletes_the_job_before_anything_else(
    load_submitted: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_POLL_SECONDS", 600.0)
    state, request = Cluster(polls_to_run=10_000, polls_to_end=20_000), job_request()
    job = build_job(load_submitted().cluster, request)

    def told(text: str) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with (
        state.running() as api,
        Preemption().watched() as preemption,
        pytest.raises(PreemptedError),
    ):
        run_job(
            api, load_submitted().cluster, job, JobListener(on_state=told), preemption=preemption
        )

    ways = [method for method, _ in state.requests]
    assert ways[ways.index("POST") :] == ["POST", "GET", "GET", "DELETE"]


def test_a_job_ends_with_the_process_that_waits_for_it(
    load_submitted: Callable[..., Config],
) -> None:
    state, preemption = Cluster(polls_to_end=10_000), Preemption()
    cluster = load_submitted().cluster
    request = job_request()

    def asked(line: str) -> None:
        preemption.asked = True

    with state.running() as api, pytest.raises(PreemptedError):
        run_job(
            api,
            cluster,
            build_job(cluster, request),
            JobListener(on_line=asked),
            preemption=preemption,
        )

    assert state.deleted == [request.name]


@pytest.fixture
def train(load_submitted: Callable[..., Config]) -> Callable[..., Any]:
    def train(state: Cluster, listener: Listener = Listener(), restarts: int = 0) -> Any:  # noqa: B008
        config = load_submitted("cluster.max_restarts=2")
        with state.running() as api:
            return train_on_cluster(config, "torch", 2, "STUDY", listener, restarts, api)

    return train


RESULT = event(event="result", run_id="r1", metrics={"eval_loss": 0.5})


def test_a_training_run_on_the_cluster_has_its_result_from_the_log(
    train: Callable[..., Any],
) -> None:
    steps: list[int] = []
    state = Cluster(log=[event(event="step", step=3, steps=9), RESULT])

    found = train(state, Listener(lambda cell, step, of: steps.append(step)))

    assert found == ("r1", {"eval_loss": 0.5})
    assert steps == [3]
    [job] = state.jobs.values()
    variables = {each["name"]: each.get("value") for each in job["spec"]["trainer"]["env"]}
    assert "name: quickstart" in variables["TANDEM_CONFIG"]
    assert "tracking" not in variables["TANDEM_CONFIG"].split("cluster:")[0]


def test_a_preempted_run_goes_on_in_the_same_folder(train: Callable[..., Any]) -> None:
    state = Cluster(logs=[[event(event="preempted", step=40)], [RESULT]])
    notes: list[str] = []

    assert train(state, Listener(on_note=notes.append))[0] == "r1"

    first, second = (job["spec"]["trainer"]["command"] for job in state.jobs.values())
    assert first == second
    assert "preempted, and saved after step 40; going on" in notes


def test_a_pod_that_saved_when_asked_to_end_is_gone_on_with_though_its_job_failed(
    train: Callable[..., Any],
) -> None:
    saved = event(event="preempted", step=40)
    state = Cluster(logs=[["hello"], [RESULT]], late=[saved], fails_once=True, polls_to_end=2)
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if "going on" in text:
            state.late = []

    assert train(state, Listener(on_note=note))[0] == "r1"

    assert "preempted, and saved after step 40; going on" in notes
    assert state.deleted == [*state.jobs], "neither is left to be looked at"


@pytest.mark.parametrize("disruption", ["Evicted", "EvictionByEvictionAPI"])
@pytest.mark.parametrize("pods_go", [False, True])
def test_a_pod_that_was_taken_back_unsaved_is_a_preemption_too(
    train: Callable[..., Any], disruption: str, pods_go: bool
) -> None:
    state = Cluster(logs=[["hello"], [RESULT]], fails_once=True, pods_go=pods_go)
    state.disruption = disruption
    notes: list[str] = []

    assert train(state, Listener(on_note=notes.append))[0] == "r1"

    first, _ = state.jobs
    [said] = [note for note in notes if "going on" in note]
    assert said.startswith(f"pod {first}-node-0-0 was taken back ({disruption}: ")


def test_pods_that_are_taken_back_again_and_again_are_given_up(train: Callable[..., Any]) -> None:
    state = Cluster(fails=True, disruption="Evicted")

    with pytest.raises(PreemptedError, match="low on resource"):
        train(state)
    assert len(state.jobs) == 3


def test_a_job_that_ran_out_of_time_has_failed_though_it_saved(
    run: Callable[..., float],
) -> None:
    state = Cluster(log=[event(event="preempted", step=40)], fails=True)
    state.failure = "DeadlineExceeded"

    with pytest.raises(WorkError, match="DeadlineExceeded"):
        run(state)


@pytest.mark.parametrize("keeps_names", [False, True])
def test_a_job_that_a_queue_took_back_and_let_in_again_is_told_on_and_ends_well(
    train: Callable[..., Any], keeps_names: bool
) -> None:
    state = Cluster(log=["first", event(event="preempted", step=40)], evicted_at=4, polls_to_end=9)
    state.keeps_names = keeps_names
    state.second_log = [event(event="resumed", step=40), "second", RESULT]
    lines: list[str] = []

    found = train(state, Listener(on_line=lambda name, line: lines.append(line)))

    assert found == ("r1", {"eval_loss": 0.5})
    assert lines == ["first", "second"]
    assert len(state.jobs) == 1


def test_a_failure_after_a_second_admission_is_no_preemption(train: Callable[..., Any]) -> None:
    state = Cluster(log=[event(event="preempted", step=40)], evicted_at=4, polls_to_end=9)
    state.fails, state.second_log = True, [event(event="step", step=41, steps=50)]

    with pytest.raises(WorkError, match="exit code 1"):
        train(state)
    assert len(state.jobs) == 1


def test_a_jobs_seconds_begin_anew_when_its_pods_do(
    run: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    state, ran = Cluster(evicted_at=4, polls_to_end=10), list[str]()
    clock = SimpleNamespace(monotonic=lambda: 10.0 * state.polls, sleep=time.sleep)
    monkeypatch.setattr(job_runner, "time", clock)

    assert run(state, JobListener(on_running=lambda: ran.append("runs"))) == 40.0
    assert ran == ["runs"]


def test_a_run_that_is_preempted_again_and_again_is_given_up(train: Callable[..., Any]) -> None:
    state = Cluster(log=[event(event="preempted", step=40)])

    with pytest.raises(PreemptedError, match="after step 40"):
        train(state)
    assert len(state.jobs) == 3


def test_a_failed_run_is_started_again_as_often_as_asked(train: Callable[..., Any]) -> None:
    state = Cluster(fails=True)

    with pytest.raises(WorkError, match="exit code 1"):
        train(state, restarts=1)
    assert len(state.jobs) == 2


def test_a_run_that_nobody_can_ask_about_is_not_started_again(
    train: Callable[..., Any], no_retries: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_MINUTES", 0.001)
    state = Cluster(away=[503] * 50)

    with pytest.raises(UnansweredError):
        train(state, restarts=3)
    assert len(state.jobs) == 1


def test_a_diverged_run_is_not_started_again(train: Callable[..., Any]) -> None:
    state = Cluster(log=[event(event="diverged", message="loss at step 3 is nan")], fails=True)

    with pytest.raises(DivergedError, match="step 3"):
        train(state, restarts=3)
    assert len(state.jobs) == 1


def test_in_a_step_of_a_pipeline_workers_are_pods_and_their_log_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(log=["hello", event(event="step", step=1, steps=2)])
    events: list[tuple[int, dict[str, Any]]] = []
    started: list[int] = []
    monkeypatch.setenv(CLUSTER_VARIABLE, json.dumps({"images": {"tag": "9"}}))

    with state.running() as api:
        monkeypatch.setattr(job_launcher, "KubernetesApi", lambda namespace: api)
        launch(
            "tf",
            ["train", "--config", "/mnt/tandem/c.yaml", "--output", "/mnt/tandem/tf-x2-r1"],
            logs=tmp_path,
            layout=Layout(workers=2),
            threads_per_worker=3,
            environment={"MLFLOW_RUN_ID": "r1"},
            on_event=lambda rank, said: events.append((rank, said)),
            on_start=lambda pid, variables: started.append(pid),
        )

    [(name, job)] = state.jobs.items()
    assert name.startswith("tf-train-tf-x2-r1-")
    assert job["spec"]["trainer"]["image"] == "tandem-tf:9"
    assert job["spec"]["trainer"]["numNodes"] == 2
    variables = {each["name"]: each.get("value") for each in job["spec"]["trainer"]["env"]}
    assert (variables["MLFLOW_RUN_ID"], variables["OMP_NUM_THREADS"]) == ("r1", "3")
    assert "ownerReferences" not in job["metadata"]
    assert (tmp_path / "rank0.log").read_text() == "hello\n"
    assert events == [(0, {"event": "step", "step": 1, "steps": 2})]
    assert started == [0]


def test_a_job_is_owned_by_the_pod_of_its_step_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(polls_to_run=0, polls_to_end=10_000)
    monkeypatch.setenv(CLUSTER_VARIABLE, "{}")
    monkeypatch.setattr(job_launcher, "own_pod", lambda namespace: {"name": f"step-in-{namespace}"})

    with state.running() as api, pytest.raises(PreemptedError):
        monkeypatch.setattr(job_launcher, "KubernetesApi", lambda namespace: api)
        launch(
            "torch",
            ["step", "--config", "/mnt/tandem/c.yaml", "--output", "/mnt/tandem/out"],
            logs=tmp_path,
            layout=Layout(workers=2),
            on_start=lambda pid, variables: os.kill(os.getpid(), signal.SIGTERM),
        )

    [(name, job)] = state.jobs.items()
    assert job["metadata"]["ownerReferences"] == [{"name": "step-in-tandem"}]
    assert state.deleted == [name]


def test_a_step_that_saves_nothing_fails_where_its_pods_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Cluster(fails=True, disruption="Evicted")
    monkeypatch.setenv(CLUSTER_VARIABLE, "{}")

    with state.running() as api:
        monkeypatch.setattr(job_launcher, "KubernetesApi", lambda namespace: api)
        for stage, error in (("train", PreemptedError), ("transform", WorkError)):
            arguments = [stage, "--config", "/mnt/c.yaml", "--output", f"/mnt/{stage}"]
            with pytest.raises(error, match=r"was taken back \(Evicted"):
                launch("torch", arguments, logs=tmp_path)


@pytest.mark.parametrize(
    "option", [("--hosts", "2"), ("--bandwidth", "1gbit"), ("--resume", "out")]
)
def test_a_run_on_the_cluster_takes_no_option_of_this_machine(option: tuple[str, str]) -> None:
    asked = ["train", "torch", "--on", "kubernetes", *option]

    refusal = CliRunner().invoke(app, asked).exception

    assert isinstance(refusal, InputError)
    assert f"{option[0]} {option[1]}" in str(refusal)


def test_without_a_cluster_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(InputError, match="no Kubernetes cluster"):
        KubernetesApi("tandem")
