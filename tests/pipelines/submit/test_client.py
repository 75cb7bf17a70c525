"""Submission, through a small server in Kubeflow Pipelines' place.

It holds every request, and its own answers, to the published description of the API where that is
present. That shows that both match the contract, not that a server would execute them.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
import yaml
from kubernetes.config import kube_config
from typer.testing import CliRunner

from pipelines.cli.commands import app
from pipelines.cli.narrator import Narrator
from pipelines.cli.submit import submit, write_dry_run
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.errors import InputError, TandemError, WorkError
from pipelines.submit import client as client_module
from pipelines.submit import follow, kubernetes_api, patience
from pipelines.submit.client import KfpClient
from pipelines.submit.credentials import COOKIE_VARIABLE, TOKEN_VARIABLE, Credentials
from tests.json_handler import JsonHandler
from tests.pipelines.kubeflow_documents import DRIVER, event, quickstart, train_events

TOKEN = "the-good-token"
COOKIE = "session=the-good-cookie"


@dataclass
class KfpServer:
    """What the server knows, and how it is to behave."""

    swagger: dict[str, Any] | None = None
    """The API's description, strict; None: requests are taken as they are."""
    multi_user: bool = False
    failures: int = 0
    """So many requests are answered with 500 before it recovers."""
    pages_alone: int = 0
    """So often the pages say that the API server behind them is not there."""
    login: bool = False
    """Whether everything is answered with a login page."""
    task_error: str | None = None
    """With it a run's cell fails, and its log says so, before what Kubeflow's launcher adds."""
    polls_to_end: int = 2
    record: dict[str, Any] = field(default_factory=dict)
    """What it keeps of a run that has ended well, besides its state."""
    events: list[dict[str, Any]] | None = None
    """Those of Kubernetes, in whose place it is too; None: the user may not see them."""
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """How requests, or the server's own answers, contradict the description."""
    uploads: list[str] = field(default_factory=list)
    host: str = ""

    def check(self, method: str, path: str, query: dict[str, str], body: Any) -> dict[str, Any]:
        """Hold a request to the description; the operation that it asks for."""
        if self.swagger is None:
            return {}
        for template, operations in self.swagger["paths"].items():
            pattern = re.sub(r"\{[^}]+\}", "[^/:]+", template)
            if re.fullmatch(pattern, path) and method.lower() in operations:
                break
        else:
            self.complaints.append(f"{method} {path}: no such operation")
            return {}
        operation = operations[method.lower()]
        parameters = operation.get("parameters", [])
        known = {each["name"] for each in parameters if each["in"] == "query"}
        if unknown := query.keys() - known:
            self.complaints.append(f"{method} {path}: unknown query {sorted(unknown)}")
        for each in parameters:
            if each["in"] == "body":
                self.hold(f"{method} {path}", body, each["schema"])
        return operation

    def hold(self, where: str, value: Any, schema: dict[str, Any]) -> None:
        assert self.swagger is not None
        whole = {**schema, "definitions": self.swagger["definitions"]}
        for error in jsonschema.Draft4Validator(whole).iter_errors(value):
            self.complaints.append(f"{where}: {error.message}")

    @contextmanager
    def running(self) -> Iterator["KfpServer"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.host = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _handler(state: KfpServer) -> type[JsonHandler]:
    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            raw = self.body()
            state.requests.append((method, parts.path))
            try:
                status, said = 200, self._serve(method, parts.path, query, raw)
            except Refused as refusal:
                code = {401: 16, 404: 5, 409: 6}.get(refusal.status, 13)
                status, said = refusal.status, {"code": code, "message": str(refusal)}
            self.say(status, said)

        def _serve(self, method: str, path: str, query: dict[str, str], raw: bytes) -> Any:
            if state.failures > 0:
                state.failures -= 1
                raise Refused(500, "the database is away")
            if state.login:
                return "<html>Log in</html>"
            if path.endswith("/healthz") and state.pages_alone > 0:
                state.pages_alone -= 1
                return {"apiServerReady": False, "frontendTagName": "2.16.1"}
            told = self.headers.get("Authorization"), self.headers.get("Cookie")
            if told[0] != f"Bearer {TOKEN}" and told[1] != COOKIE:
                raise Refused(401, "Request header error: there is no user identity header.")
            if path == "/k8s/pod/logs":
                assert query == {"podname": "pod-cell", "runid": "r0", "podnamespace": "tandem"}
                return f"epoch 1\n{state.task_error}\nF0101 main.go:69] exit status 1\n"
            if path == "/api/v1/namespaces/tandem/events":
                assert query == {"fieldSelector": "involvedObject.kind=Pod"}
                if state.events is None:
                    raise Refused(403, 'events is forbidden: User "me" cannot list them')
                return {"kind": "EventList", "items": state.events}
            form = self.headers.get("Content-Type", "").startswith("multipart/")
            body = json.loads(raw) if raw and not form else None
            operation = state.check(method, path, query, body)
            if form:
                state.uploads.append(self._file(raw))
            said = _respond(state, method, path, query, body)
            if operation:
                state.hold(f"answer to {path}", said, operation["responses"]["200"]["schema"])
            return said

        def _file(self, raw: bytes) -> str:
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            [part] = BytesParser().parsebytes(head + raw).get_payload()
            text = part.get_payload(decode=True).decode()
            assert next(iter(yaml.safe_load_all(text)))["pipelineInfo"]
            return text

    return Handler


def _respond(state: KfpServer, method: str, path: str, query: dict[str, str], body: Any) -> Any:
    match method, path.removeprefix("/apis/v2beta1/").split("/"):
        case "GET", ["healthz"]:
            return {"multi_user": state.multi_user}
        case "POST", ["pipelines", "upload"]:
            if query["name"] in state.pipelines:
                raise Refused(409, f"The name {query['name']} already exist.")
            made = {"pipeline_id": f"p{len(state.pipelines)}", "display_name": query["name"]}
            state.pipelines[query["name"]] = made
            _add_version(state, made["pipeline_id"], query["name"])
            return made
        case "GET", ["pipelines", "names", name]:
            return state.pipelines[name]
        case "POST", ["pipelines", "upload_version"]:
            return _add_version(state, query["pipelineid"], query["name"])
        case "GET", ["pipelines", pipeline_id, "versions"]:
            own = [each for each in state.versions if each["pipeline_id"] == pipeline_id]
            return {"pipeline_versions": own[::-1]}
        case "GET", ["experiments"]:
            [wanted] = json.loads(query["filter"])["predicates"]
            named = [
                each for each in state.experiments if each["display_name"] == wanted["stringValue"]
            ]
            return {"experiments": named}
        case "POST", ["experiments"]:
            made = {**body, "experiment_id": f"e{len(state.experiments)}"}
            state.experiments.append(made)
            return made
        case "POST", ["runs"]:
            run = {**body, "run_id": f"r{len(state.runs)}", "state": "PENDING"}
            state.runs[run["run_id"]] = {"run": run, "polls": 0}
            return run
        case "GET", ["runs", run_id]:
            return _advanced(state, state.runs[run_id])
    raise Refused(404, f"{method} {path}")


def _add_version(state: KfpServer, pipeline_id: str, name: str) -> dict[str, Any]:
    if any(
        (each["pipeline_id"], each["display_name"]) == (pipeline_id, name)
        for each in state.versions
    ):
        raise Refused(409, f"The version {name} already exist.")
    version_id = f"v{len(state.versions)}"
    made = {"pipeline_id": pipeline_id, "pipeline_version_id": version_id, "display_name": name}
    state.versions.append(made)
    return made


def _advanced(state: KfpServer, held: dict[str, Any]) -> dict[str, Any]:
    """A run one poll later: its first task runs, then all have ended."""
    held["polls"] += 1
    ended = held["polls"] >= state.polls_to_end
    last = "FAILED" if state.task_error else "SUCCEEDED"
    tasks = [
        {"task_id": "t0", "display_name": "root", "state": "RUNNING"},
        _task("t1", "ingest", "SUCCEEDED" if ended else "RUNNING", "pod-ingest"),
        _task("t2", "torch ddp x2 #1", last if ended else "PENDING", ""),
    ]
    if ended and state.task_error:  # the step is but a name for the pod in it
        tasks[-1]["child_tasks"] = [{"task_id": "t3"}]
        tasks.append(_task("t3", "executor", "FAILED", "pod-cell"))
    held["run"] |= {"state": last if ended else "RUNNING", "run_details": {"task_details": tasks}}
    if ended and not state.task_error:
        held["run"] |= state.record
    return held["run"]


def _task(task_id: str, name: str, state: str, pod: str) -> dict[str, Any]:
    made: dict[str, Any] = {"task_id": task_id, "parent_task_id": "t0", "display_name": name}
    made |= {"state": state, "pod_name": pod, "end_time": "2026-01-01T00:00:00Z"}
    if state == "FAILED":
        made["error"] = {"code": 13, "message": "exit status 1"}
    return made


SCHEMA = PROJECT_ROOT.parent / "shared" / "schemas" / "kfp-2.16.1.swagger.json"


@pytest.fixture(scope="module")
def swagger() -> dict[str, Any] | None:
    return _closed(json.loads(SCHEMA.read_text())) if SCHEMA.exists() else None


def _closed(schema: Any) -> Any:
    """The same, but for what it does not name."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        made["additionalProperties"] = False
    return made


@pytest.fixture
def server(swagger: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(patience, "_SECONDS_BETWEEN", 0.02)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/none")
    with KfpServer(swagger).running() as running:
        yield running
    assert running.complaints == []


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)


@pytest.fixture
def kubectl(server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set to the server; the file that says so."""
    file = tmp_path / "kubeconfig"
    context = {"cluster": "there", "user": "me"}
    content = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "there", "cluster": {"server": server.host}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
    }
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    return file


@pytest.fixture
def send(server: KfpServer, load_quickstart: Callable[..., Config]) -> Callable[..., Any]:
    """Submit the quickstart's ingestion, the smallest of its pipelines."""

    def submitted(*overrides: str, **options: Any) -> Any:
        config = load_quickstart(*overrides)
        return submit(config, Narrator(), ["ingest"], server.host, **options)

    return submitted


def test_a_submission_is_uploaded_and_run_in_the_studys_experiment(
    send: Callable[..., Any], server: KfpServer, token: None
) -> None:
    said = send("cluster.pipeline_root=gs://bucket/tandem", "cluster.service_account=me")

    [run] = said["runs"]
    assert run == {
        "pipeline": "quickstart-ingest",
        "version": "quickstart-ingest",
        "run_id": "r0",
    }
    asked = server.runs["r0"]["run"]
    assert asked["pipeline_version_reference"] == {
        "pipeline_id": "p0",
        "pipeline_version_id": "v0",
    }
    assert asked["runtime_config"] == {"pipeline_root": "gs://bucket/tandem"}
    assert asked["service_account"] == "me"
    assert server.experiments == [{"experiment_id": "e0", "display_name": "quickstart"}]
    assert asked["experiment_id"] == "e0"


def test_what_is_uploaded_is_what_a_dry_run_writes(
    send: Callable[..., Any],
    server: KfpServer,
    token: None,
    load_quickstart: Callable[..., Config],
    tmp_path: Path,
) -> None:
    send()
    write_dry_run(load_quickstart(), Narrator(), ["ingest"], tmp_path / "dry")

    assert server.uploads == [(tmp_path / "dry" / "ingest_pipeline.yaml").read_text()]


def test_requests_and_answers_are_held_to_the_published_description(
    swagger: dict[str, Any] | None,
) -> None:
    if swagger is None:
        pytest.skip(f"the published API description is not at {SCHEMA}")
    server = KfpServer(swagger)

    server.check("POST", "/apis/v2beta1/runs", {}, {"display_name": "x", "stat": "RUNNING"})
    server.check("POST", "/apis/v2beta1/runs", {}, {"storage_state": "GONE"})
    server.check("GET", "/apis/v2beta1/experiments", {"nspace": "x"}, None)
    server.check("GET", "/apis/v1beta1/runs", {}, None)

    assert len(server.complaints) == 4


def test_a_server_of_many_users_is_told_the_namespace(
    send: Callable[..., Any], server: KfpServer, token: None
) -> None:
    server.multi_user = True

    send("cluster.namespace=team")

    [experiment] = server.experiments
    assert experiment["namespace"] == "team"


def test_a_bad_token_is_one_line_that_says_where_a_good_one_goes(
    send: Callable[..., Any], server: KfpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "the-bad-token")

    with pytest.raises(InputError) as refusal:
        send()

    assert "401" in str(refusal.value)
    assert "--token-file" in str(refusal.value)
    assert "the-bad-token" not in str(refusal.value)
    assert server.requests == [("GET", "/apis/v2beta1/healthz")]


def test_a_token_comes_from_a_file_a_variable_or_the_pod_and_a_cookie_does_too(
    send: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    assert send(token_file=file)["runs"]
    monkeypatch.setenv(COOKIE_VARIABLE, COOKIE)
    assert send()["runs"]
    assert Credentials.find(environment={}, pod_token=file).current_token() == TOKEN
    assert Credentials.find(environment={}, pod_token=tmp_path / "none") == Credentials()
    with pytest.raises(InputError, match="--token-file"):
        Credentials.find(tmp_path / "none")


def test_a_token_that_is_renewed_in_its_file_is_read_anew(
    server: KfpServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    asked = KfpClient(server.host, "tandem", Credentials.find(file))
    file.write_text("the-expired-token")

    with pytest.raises(InputError, match="401"):
        asked.experiment("study")
    file.write_text(TOKEN)
    assert asked.experiment("study") == "e0"


def test_credentials_are_in_no_upload_no_run_and_no_representation(
    send: Callable[..., Any],
    server: KfpServer,
    token: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(wait=True)

    said = capsys.readouterr()
    everything = json.dumps([server.runs, server.experiments, server.uploads, server.requests])
    for text in (everything, said.out, said.err, repr(Credentials(TOKEN, COOKIE))):
        assert TOKEN not in text
        assert COOKIE not in text


def test_a_server_that_fails_twice_and_recovers_is_asked_again(
    send: Callable[..., Any], server: KfpServer, token: None
) -> None:
    server.failures = 2

    assert len(send()["runs"]) == 1
    assert server.requests[:3] == [("GET", "/apis/v2beta1/healthz")] * 3


def test_a_server_that_goes_on_failing_is_given_up(
    server: KfpServer, token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib3 import Retry

    monkeypatch.setattr(
        client_module, "retries", lambda: Retry(2, status_forcelist=[500], raise_on_status=False)
    )
    server.failures = 10

    with pytest.raises(WorkError, match="the database is away"):
        KfpClient(server.host, "tandem", Credentials.find())
    assert len(server.requests) == 3


def test_pages_before_an_api_that_is_not_ready_are_asked_again(
    server: KfpServer, token: None
) -> None:
    server.pages_alone, server.multi_user = 2, True

    KfpClient(server.host, "team", Credentials.find()).experiment("study")

    [experiment] = server.experiments
    assert experiment["namespace"] == "team"
    assert server.requests[:3] == [("GET", "/apis/v2beta1/healthz")] * 3


def test_pages_before_an_api_that_stays_away_are_given_up(
    server: KfpServer, token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from urllib3 import Retry

    monkeypatch.setattr(client_module, "retries", lambda: Retry(2))
    server.pages_alone = 10

    with pytest.raises(WorkError) as failure:
        KfpClient(server.host, "tandem", Credentials.find())
    assert str(failure.value) == (f"{server.host}: the API server behind the address is not ready")
    assert len(server.requests) == 3


def test_a_login_page_is_not_taken_for_a_server(server: KfpServer) -> None:
    server.login = True

    with pytest.raises(InputError, match="login page"):
        KfpClient(server.host, "tandem", Credentials.find())


def test_a_taken_name_becomes_a_new_version(
    send: Callable[..., Any], server: KfpServer, token: None
) -> None:
    send()
    [second] = send(version="2nd")["runs"]
    [third] = send()["runs"]

    assert [*server.pipelines] == ["quickstart-ingest"]
    assert second["version"] == "2nd"
    assert third["version"].startswith("quickstart-ingest 20")
    reference = server.runs["r2"]["run"]["pipeline_version_reference"]
    assert reference == {"pipeline_id": "p0", "pipeline_version_id": "v2"}
    assert len(server.experiments) == 1


def test_a_taken_version_is_refused_by_name(
    send: Callable[..., Any], server: KfpServer, token: None
) -> None:
    send()
    send(version="2nd")

    with pytest.raises(InputError, match="--version 2nd: pipeline quickstart-ingest has one"):
        send(version="2nd")
    assert len(server.runs) == 2


def test_waiting_tells_what_runs_and_ends_with_the_run(server: KfpServer, token: None) -> None:
    told: list[tuple[str, int, int]] = []
    asked = KfpClient(server.host, "tandem", Credentials.find())
    run_id = asked.start("run", "e0", "p0", "v0", None, None)

    follow.follow_run(asked, run_id, "tandem", lambda *now: told.append(now), lambda line: None)

    assert told == [("ingest", 0, 2), ("succeeded", 2, 2)]


def test_a_server_that_is_away_for_a_while_ends_no_waiting(
    server: KfpServer, token: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_api, "_ATTEMPTS", 0)
    lines: list[str] = []
    asked = KfpClient(server.host, "tandem", Credentials.find())
    run_id = asked.start("run", "e0", "p0", "v0", None, None)
    server.failures = 3

    ended = follow.follow_run(asked, run_id, "tandem", lambda *now: None, lines.append)

    assert ended.state == "SUCCEEDED"
    assert lines == [
        f"{server.host}: 500 the database is away; asking again, for 10 minutes at most"
    ]


def test_a_run_that_fails_names_its_task_and_shows_the_end_of_its_log(
    send: Callable[..., Any],
    server: KfpServer,
    token: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.task_error = "error: worker 1 ended with SIGKILL"

    with pytest.raises(WorkError) as failure:
        send(wait=True)

    assert "task 'torch ddp x2 #1' failed: error: worker 1 ended with SIGKILL" in str(failure.value)
    assert f"{server.host}/#/runs/details/r0" in str(failure.value)
    said = capsys.readouterr().err
    assert "epoch 1" in said
    assert "What each task took" not in said
    assert failure.value.exit_code == 1


def record_of(document: dict[str, Any]) -> dict[str, Any]:
    """What the server adds to the run that it was asked for."""
    return {name: document[name] for name in ("created_at", "finished_at", "run_details")}


@pytest.fixture
def timed(server: KfpServer) -> KfpServer:
    """Its runs take what the quickstart's would; events tell of one of their pods."""
    server.record = record_of(quickstart())
    server.events = train_events()["items"]
    return server


def drivers_events() -> list[dict[str, Any]]:
    return [event(f"quick-x7-{DRIVER}{number}", "Scheduled", 6) for number in (10, 20, 30)]


def test_the_command_submits_waits_and_says_as_json_what_the_run_took(
    timed: KfpServer, token: None, kubectl: Path, tmp_path: Path
) -> None:
    assert timed.events is not None
    timed.events += drivers_events()

    said = CliRunner().invoke(
        app,
        [
            "submit",
            *("--host", timed.host, "--pipeline", "ingest", "--wait", "--json"),
            *("--set", f"output={tmp_path}"),
        ],
    )

    assert said.exit_code == 0
    [run] = json.loads(said.stdout)["runs"]
    assert run["run_id"] == "r0"
    times = run["times"]
    assert times.pop("tasks")["train"] == {
        "seconds": 66.0,
        "startup_seconds": 38.0,
        "running_seconds": 28.0,
        "scheduling_seconds": 4.5,
        "pull_seconds": 25.25,
        "pods": 2,
        "cached": False,
    }
    assert times == {
        "seconds": 100.0,
        "running_seconds": 36.0,
        "overhead_seconds": 64.0,
        "pods": 6,
        "note": None,
    }


def test_a_run_that_ended_well_is_followed_by_what_each_task_took(
    send: Callable[..., Any],
    timed: KfpServer,
    token: None,
    kubectl: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    send(wait=True)

    lines = capsys.readouterr().err.splitlines()
    begin = lines.index(next(line for line in lines if line.startswith("What each task took")))
    rows = [line.split() for line in lines[begin + 1 : begin + 5]]
    assert rows == [
        ["task", "seconds", "start-up", "pods", "pull", "cached"],
        ["validate", "25", "17", "2", "–", "no"],
        ["transform", "5", "–", "1", "–", "yes"],
        ["train", "66", "38", "2", "25", "no"],
    ]
    told = " ".join(lines[begin + 5 :])
    assert "took 100 s, in 64 s of which no component's container ran; 6 pods." in told
    assert "2 of 3 tasks are timed by Kubeflow's record alone" in told
    assert "namespace tandem has no events of their pods" in told


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "the cluster does not say what has happened to pods: 403 events is forbidden"),
        ("", "no Kubernetes cluster: this is no pod of one"),
        ("contexts: [", "no Kubernetes cluster: this is no pod of one"),
        ("a note", "no Kubernetes cluster: this is no pod of one"),
    ],
    ids=["no permission", "no context", "no YAML", "no configuration"],
)
def test_where_kubernetes_tells_nothing_the_runs_record_does(
    send: Callable[..., Any],
    timed: KfpServer,
    token: None,
    kubectl: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    reason: str,
) -> None:
    timed.events = None
    if content is not None:
        kubectl.write_text(content)

    [run] = send(wait=True)["runs"]

    times = run["times"]
    start = "All tasks are timed by Kubeflow's record alone, without image pulls: "
    assert times["note"].startswith(start + reason)
    assert times["note"] in capsys.readouterr().err.splitlines()
    train = times["tasks"]["train"]
    assert (train["startup_seconds"], train["pull_seconds"]) == (36.0, None)
    assert times["overhead_seconds"] == 62.0


def test_a_record_that_tells_nothing_fails_no_run_that_ended_well(
    send: Callable[..., Any], token: None, capsys: pytest.CaptureFixture[str]
) -> None:
    [run] = send(wait=True)["runs"]

    assert run["times"] is None
    assert "What the run took is not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--host"),
        (["--host", "kfp.example"], "must begin with http"),
        (["--dry-run"], "--output"),
        (["--dry-run", "--output", str(PROJECT_ROOT / "configs")], "which no dry run wrote"),
        (["--host", "http://127.0.0.1:1", "--token-file", "/none"], "--token-file /none"),
    ],
)
def test_what_the_command_lacks_is_said_by_its_option(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["submit", *options])

    assert isinstance(result.exception, TandemError)
    assert said in str(result.exception)
    assert result.exception.exit_code == 2


def test_a_server_that_is_no_kubeflow_pipelines_is_told_as_such(
    server: KfpServer, token: None
) -> None:
    with pytest.raises(InputError, match="is no Kubeflow Pipelines v2 server"):
        KfpClient(f"{server.host}/elsewhere", "tandem", Credentials.find())
    server.complaints.clear()  # the address was to be wrong
