"""A Docker engine with the project's images in it, and what takes a cluster's place on it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pipelines
from pipelines.cli.narrator import Narrator
from pipelines.cli.submit import write_dry_run
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import Dataset
from pipelines.submit.submission import PipelineName, on_cluster
from tests.docker.cluster import ContainerCluster, restricted
from tests.docker.engine import docker, engine, make_base_image, obstacle
from tests.docker.local_runner import run_compiled

IMAGES = ("core", "tf", "torch")


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[str]:
    """How the engine came by the base image; ``DOCKER_HOST`` leads to the engine."""
    why_not = obstacle()
    if why_not:
        pytest.skip(why_not)
    with engine():
        yield make_base_image()


@pytest.fixture(scope="session")
def images(docker_engine: str) -> dict[str, str]:
    """Tags of the images by their part, built from the present code (from the cache if it can)."""
    subprocess.run(
        [PROJECT_ROOT / "infra" / "docker" / "images.sh"],
        check=True,
        env=os.environ | {"DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")},
    )
    return {image: f"tandem-{image}:{pipelines.__version__}" for image in IMAGES}


@pytest.fixture(scope="session")
def image_labels(images: dict[str, str]) -> dict[str, dict[str, str]]:
    return {
        image: json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", tag))
        for image, tag in images.items()
    }


@pytest.fixture(scope="session")
def submitted() -> Config:
    """The shipped quickstart as pods have it, its study on two workers at most, once."""
    settings = ["study.repeats=1", "cluster.tracking_secret=null"]
    return on_cluster(load_config(PROJECT_ROOT / "configs" / "quickstart.yaml", settings))


@pytest.fixture(scope="session")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in the place of the claim, which the images' user may write to."""
    folder = tmp_path_factory.mktemp("claim")
    folder.chmod(0o777)
    return folder


@pytest.fixture(scope="session")
def on_claim(submitted: Config, claim: Path) -> Callable[[Path], Path]:
    """A path as pods have it -> where it is on this machine."""
    return lambda path: claim / path.relative_to(submitted.cluster.mount_path)


@pytest.fixture(scope="session")
def network(images: dict[str, str], submitted: Config, claim: Path) -> Iterator[str]:
    """A network on which the tracking server answers by the name that it has in a cluster."""
    name, place = "tandem", submitted.cluster.mount_path
    docker("network", "create", name)
    server = docker(
        *("run", "--detach", f"--network={name}", "--network-alias=mlflow"),
        *restricted(claim, place),
        *("--env=MLFLOW_SERVER_ALLOWED_HOSTS=mlflow,mlflow:*", images["core"]),
        *("mlflow", "server", "--host=0.0.0.0", "--port=5000", "--workers=1"),
        f"--backend-store-uri=sqlite:///{place}/mlflow.db",
        f"--artifacts-destination={place}/artifacts",
    )
    asked = "import urllib.request as u; u.urlopen('http://localhost:5000/health')"
    wait = f'until python -c "{asked}" 2>/dev/null; do sleep 1; done'
    docker("exec", server, "timeout", "300", "sh", "-c", wait)
    yield name
    docker("rm", "--force", server)
    docker("network", "rm", name)


@pytest.fixture(scope="session")
def tracked(submitted: Config, claim: Path) -> Config:
    """What the tracking server has written, read without it."""
    store = submitted.tracking.model_copy(update={"uri": f"sqlite:///{claim / 'mlflow.db'}"})
    return submitted.model_copy(update={"tracking": store})


@pytest.fixture(scope="session")
def cluster(
    network: str, submitted: Config, claim: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContainerCluster]:
    """Where training jobs are created."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl here, whose kustomize builds the runtimes")
    form = "{{(index .IPAM.Config 0).Gateway}}"
    address = docker("network", "inspect", "--format", form, network)
    place = submitted.cluster.mount_path
    folder = tmp_path_factory.mktemp("cluster")
    with ContainerCluster(network, address, claim, place, folder).running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def run_pipeline(
    submitted: Config, cluster: ContainerCluster, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[PipelineName], Path]:
    """Runs a pipeline as a dry run writes it; a folder with one for each task that ran."""
    folder = tmp_path_factory.mktemp("submission")
    write_dry_run(submitted, Narrator(), ["ingest", "tf", "torch", "study"], folder / "dry")

    def run(name: PipelineName) -> Path:
        return run_compiled(folder / "dry" / f"{name}_pipeline.yaml", folder / name, cluster)

    return run


@pytest.fixture(scope="session")
def dataset(
    run_pipeline: Callable[[PipelineName], Path],
    submitted: Config,
    on_claim: Callable[[Path], Path],
) -> Dataset:
    """Made by the pipeline that ingests."""
    [ran] = run_pipeline("ingest").iterdir()
    assert ran.name == "ingest"
    return Dataset.open(on_claim(submitted.dataset_dir))
