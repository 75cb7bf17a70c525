"""Training jobs of two nodes from our own runtimes: a container per pod, each with its address.

What Kubeflow Trainer and the job set add to a runtime's pods is added here: names, numbers, and for
torch the variables of its policy. That they do add it is not shown.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.config import load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.tracking import read_runs
from tests.docker.engine import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]

NODES = 2
JOB = "study"
UID = "10001"

Job = Callable[[Framework], list[str]]


@pytest.fixture
def network(docker_engine: str) -> Iterator[str]:
    name = "tandem-runtimes"
    docker("network", "create", name)
    yield name
    docker("network", "rm", name)


@pytest.fixture
def claim(images: dict[str, str], tmp_path: Path) -> Path:
    """A folder in the place of the claim, with a resolved configuration and its dataset."""
    tmp_path.chmod(0o777)
    settings = ["training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16"]
    settings += ["tracking.uri=sqlite:////mnt/tandem/mlflow.db"]
    program = (
        "import sys, yaml; from pathlib import Path; from pipelines.config import load_config; "
        "config = load_config(Path('/opt/app/configs/quickstart.yaml'), sys.argv[1:]); "
        "Path('config.yaml').write_text(yaml.safe_dump(config.model_dump(mode='json')))"
    )
    run = ("run", "--rm", "--network=none", f"--volume={tmp_path}:/mnt/tandem", images["core"])
    docker(*run, "python", "-c", program, *settings)
    docker(*run, "tandem", "ingest", "--config", "config.yaml")
    return tmp_path


@pytest.fixture
def job(images: dict[str, str], network: str, claim: Path) -> Job:
    """Runs a training job's pods; what each printed, by its number."""
    overlay = PROJECT_ROOT / "infra" / "kubernetes" / "overlays" / "local"
    try:
        built = subprocess.run(["kubectl", "kustomize", overlay], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("no kubectl here, whose kustomize builds the runtimes")
    runtimes = {
        each["metadata"]["name"]: each
        for each in yaml.safe_load_all(built.stdout)
        if each["kind"] == "TrainingRuntime"
    }

    def run(framework: Framework) -> list[str]:
        (replicated,) = runtimes[f"tandem-{framework}"]["spec"]["template"]["spec"][
            "replicatedJobs"
        ]
        (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
        arguments = ["train", "--config=config.yaml", f"--output=out/{framework}"]
        pods = []
        for index in range(NODES):
            name = f"{JOB}-{replicated['name']}-0-{index}"
            variables = {each["name"]: each["value"] for each in container["env"]}
            variables |= _of_trainer(framework, index)
            del variables["MLFLOW_TRACKING_URI"]  # the claim has a store of its own
            docker(
                *("run", "--detach", f"--name={name}", f"--user={UID}:{UID}"),
                *(f"--hostname={name}", f"--domainname={JOB}", f"--network={network}"),
                *(f"--network-alias={name}", f"--network-alias={name}.{JOB}"),
                *("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL"),
                *(f"--volume={claim}:/mnt/tandem", "--shm-size=256m"),
                *(f"--env={key}={value}" for key, value in variables.items()),
                *("--entrypoint", container["command"][0], images[framework]),
                *(*container["command"][1:], *arguments),
            )
            pods.append(name)
        try:
            ended = [docker("wait", pods[0])]
            if ended == ["0"]:  # else the others wait for it, until a job set would end them
                ended += [docker("wait", name) for name in pods[1:]]
            printed = [_logs(name) for name in pods]
        finally:
            docker("rm", "--force", *pods)
        assert ended == ["0"] * NODES, "\n".join(printed)
        return printed

    return run


def _of_trainer(framework: Framework, index: int) -> dict[str, str]:
    if framework == "tf":
        return {"JOB_COMPLETION_INDEX": str(index), "TANDEM_NODES": str(NODES)}
    return {
        "PET_NNODES": str(NODES),
        "PET_NPROC_PER_NODE": "1",
        "PET_NODE_RANK": str(index),
        "PET_MASTER_ADDR": f"{JOB}-node-0-0.{JOB}",
        "PET_MASTER_PORT": "29400",
    }


def _logs(name: str) -> str:
    done = subprocess.run(
        ["docker", "logs", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.stdout.decode(errors="replace")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_two_nodes_train_one_model(job: Job, claim: Path, framework: Framework) -> None:
    job(framework)

    store = f"tracking.uri=sqlite:///{claim / 'mlflow.db'}"
    (run,) = read_runs(load_config(claim / "config.yaml", [store]))
    assert run.params["framework"] == framework
    assert run.status == "FINISHED"
    assert run.params["workers"] == str(NODES)
    assert 0 <= run.metrics["eval_accuracy"] <= 1
