"""What training jobs need of a cluster, in containers: Kubernetes' API and Kubeflow Trainer's work.

A TrainJob becomes a container per pod, from the runtime that it names, under the names and with the
variables that Trainer and its job sets give pods. That they do give them is taken from their
documentation, not shown.
"""

import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from pipelines.environments import PROJECT_ROOT
from tests.docker.engine import docker
from tests.json_handler import JsonHandler

__all__ = ["RESTRICTED", "SERVICE_ACCOUNT", "ContainerCluster", "restricted"]

RESTRICTED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
"""Options of ``docker run`` for a container of the restricted standard."""

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_TOKEN = "the-steps-own-token"
_OVERLAY = PROJECT_ROOT / "infra" / "kubernetes" / "overlays" / "local"
_RENDEZVOUS_PORT = "29400"
_JOB = re.compile(
    r"/apis/trainer\.kubeflow\.org/v1alpha1/namespaces/([^/]+)/trainjobs(?:/([^/]+))?"
)
_PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?")


def restricted(claim: Path, mount_path: str) -> list[str]:
    """The same for a pod that has the claim."""
    return [
        *RESTRICTED,
        *(f"--volume={claim}:{mount_path}", "--shm-size=256m"),
    ]


@dataclass
class ContainerCluster:
    """One network with one claim, and the jobs that were created on it."""

    network: str
    address: str
    """Of this machine, as containers on that network reach it."""
    claim: Path
    mount_path: str
    folder: Path
    """For its key."""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """All that were ever created, by name."""
    pods: dict[str, list[str]] = field(default_factory=dict)
    """The containers of each job."""
    evicted: set[str] = field(default_factory=set)
    port: int = 0

    @contextmanager
    def running(self) -> Iterator["ContainerCluster"]:
        """Answer, until the block ends; containers that are left end with it."""
        key, certificate = self.folder / "key.pem", self.service_account / "ca.crt"
        self.service_account.mkdir()
        subject = ["-subj", "/CN=kubernetes", "-addext", f"subjectAltName=IP:{self.address}"]
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
                *("-keyout", key, "-out", certificate, *subject),
            ],
            check=True,
            capture_output=True,
        )
        (self.service_account / "token").write_text(_TOKEN)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = ThreadingHTTPServer((self.address, 0), _handler(self))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            for name in list(self.pods):
                self.delete(name)

    @property
    def service_account(self) -> Path:
        """Its certificate and token, which steps find at ``SERVICE_ACCOUNT``."""
        return self.folder / "serviceaccount"

    @property
    def pod_variables(self) -> dict[str, str]:
        """What the kubelet tells every pod of the API."""
        return {
            "KUBERNETES_SERVICE_HOST": self.address,
            "KUBERNETES_SERVICE_PORT": str(self.port),
        }

    def create(self, job: Mapping[str, Any]) -> None:
        """Start a job's pods."""
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        runtime = _runtimes()[job["spec"]["runtimeRef"]["name"]]
        [replicated] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        [container] = replicated["template"]["spec"]["template"]["spec"]["containers"]
        self.jobs[name], self.pods[name] = dict(job), []
        for index in range(trainer["numNodes"]):
            variables = {
                each["name"]: each["value"]
                for each in [*container["env"], *trainer.get("env", [])]
                if "value" in each
            }
            variables |= self._of_trainer(runtime, name, trainer, index)
            pod = f"{name}-{replicated['name']}-0-{index}"
            docker(
                *("run", "--detach", f"--name={pod}", f"--hostname={pod}", f"--domainname={name}"),
                *(f"--network={self.network}", f"--network-alias={pod}"),
                f"--network-alias={pod}.{name}",
                *restricted(self.claim, self.mount_path),
                *(f"--env={key}={value}" for key, value in variables.items()),
                *("--entrypoint", trainer["command"][0]),
                *(trainer.get("image", container["image"]), *trainer["command"][1:]),
            )
            self.pods[name].append(pod)

    def evict(self, pod: str) -> None:
        """Ask a pod to end, as the drain of its node does."""
        self.evicted.add(pod)
        docker("kill", "--signal=TERM", pod)

    def status(self, name: str) -> dict[str, Any]:
        """A job with its conditions; one that has failed has none of its pods running.

        To Kubernetes a pod that was asked to end has failed, however it ends.
        """
        states = {pod: _state(pod) for pod in self.pods[name]}
        ended = {pod: state for pod, state in states.items() if state["ended"]}
        conditions = []
        if any(state["exitCode"] or pod in self.evicted for pod, state in ended.items()):
            # As a job set ends the others, which may save; those of a broken job would wait long.
            word = "TERM" if self.evicted & ended.keys() else "KILL"
            docker("kill", f"--signal={word}", *self.pods[name], check=False)
            conditions.append(
                {"type": "Failed", "reason": "JobsFailed", "message": "a pod has failed"}
            )
        elif states and ended.keys() == states.keys():
            conditions.append({"type": "Complete", "reason": "AllJobsCompleted", "message": ""})
        told = [{**each, "status": "True"} for each in conditions]
        return {**self.jobs[name], "status": {"conditions": told}}

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """The jobs that bear a label and have not been deleted."""
        label, _, value = selector.partition("=")
        return [
            self.status(name)
            for name in self.pods
            if self.jobs[name]["metadata"]["labels"].get(label) == value
        ]

    def delete(self, name: str) -> None:
        """End a job's pods, which get their time to save."""
        pods = self.pods.pop(name, [])
        if pods:
            docker("stop", *pods, check=False)
            docker("rm", "--force", *pods, check=False)

    def list_pods(self, name: str) -> list[dict[str, Any]]:
        """A job's pods, as Kubernetes describes them."""
        return [
            _pod(name, pod, index, evicted=pod in self.evicted)
            for index, pod in enumerate(self.pods.get(name, []))
        ]

    def _of_trainer(
        self, runtime: Mapping[str, Any], name: str, trainer: Mapping[str, Any], index: int
    ) -> dict[str, str]:
        if "torch" not in runtime["spec"]["mlPolicy"]:
            return {"JOB_COMPLETION_INDEX": str(index)}
        return {
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_NODE_RANK": str(index),
            "PET_MASTER_ADDR": f"{name}-node-0-0.{name}",
            "PET_MASTER_PORT": _RENDEZVOUS_PORT,
        }


def _runtimes() -> dict[str, dict[str, Any]]:
    built = subprocess.run(["kubectl", "kustomize", _OVERLAY], capture_output=True, check=True)
    return {
        each["metadata"]["name"]: each
        for each in yaml.safe_load_all(built.stdout)
        if each["kind"] == "TrainingRuntime"
    }


def _state(pod: str) -> dict[str, Any]:
    form = "{{.State.Status}} {{.State.ExitCode}} {{.State.FinishedAt}}"
    status, code, finished = docker("inspect", "--format", form, pod).split()
    return {"ended": status == "exited", "exitCode": int(code), "finishedAt": finished}


def _pod(job: str, pod: str, index: int, *, evicted: bool) -> dict[str, Any]:
    state = _state(pod)
    phase = "Running" if not state["ended"] else "Failed" if state["exitCode"] else "Succeeded"
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    told: dict[str, Any] = {"running": {}}
    if state["ended"]:
        told = {"terminated": {"exitCode": state["exitCode"], "finishedAt": state["finishedAt"]}}
    status = {"name": "node", "image": "", "imageID": "", "ready": True, "restartCount": 0}
    labels = {
        "jobset.sigs.k8s.io/jobset-name": job,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    return {
        "metadata": {"name": pod, "labels": labels},
        "status": {
            "phase": phase,
            "conditions": [disrupted] if evicted else [],
            "containerStatuses": [{**status, "state": told}],
        },
    }


def _handler(cluster: ContainerCluster) -> type[JsonHandler]:
    class Handler(JsonHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            if self.headers["Authorization"] not in (f"Bearer {_TOKEN}", f"bearer {_TOKEN}"):
                self.say(401, {"message": "Unauthorized"})
            elif (job := _JOB.fullmatch(parts.path)) and job[2] in cluster.pods:
                self.say(200, cluster.status(job[2]))
            elif job and job[2] is None:
                self.say(200, {"items": cluster.list_jobs(query["labelSelector"])})
            elif (pods := _PODS.fullmatch(parts.path)) and pods[2]:
                self._log(pods[2], query)
            elif pods:
                _, _, name = query["labelSelector"].partition("=")
                self.say(200, {"items": cluster.list_pods(name)})
            else:
                self.say(404, {"message": f"no {parts.path}"})

        def do_POST(self) -> None:
            job = json.loads(self.body())
            cluster.create(job)
            self.say(201, job)

        def do_DELETE(self) -> None:
            self.body()
            cluster.delete(urlsplit(self.path).path.rpartition("/")[2])
            self.say(200, {"status": "Success"})

        def _log(self, pod: str, query: Mapping[str, str]) -> None:
            options = ["--follow"] if query.get("follow") == "True" else []
            options += ["--timestamps"] if query.get("timestamps") == "True" else []
            options += ["--tail", query["tailLines"]] if "tailLines" in query else []
            reading = subprocess.Popen(
                ["docker", "logs", *options, pod], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert reading.stdout is not None
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            # As Kubernetes does it: who reads gets each part at once.
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with reading:
                while part := reading.stdout.read1(2**16):
                    self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    return Handler
