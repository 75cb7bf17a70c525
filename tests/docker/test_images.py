"""The images, run as a cluster under the restricted standard would run them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipelines
from pipelines.environments import PROJECT_ROOT
from tests.docker.cluster import RESTRICTED
from tests.docker.engine import docker

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]

IMAGES = ["core", "tf", "torch"]
QUICKSTART = "/opt/app/configs/quickstart.yaml"
SMALL = (
    "training.steps=12",
    "training.warmup_steps=2",
    "training.batch_size_per_worker=16",
)

each_image = pytest.mark.parametrize("image", IMAGES)

Run = Callable[..., str]


@pytest.fixture
def run(images: dict[str, str]) -> Run:
    def run(image: str, *command: str, options: tuple[str, ...] = ()) -> str:
        return docker(
            "run", "--rm", "--network=none", *RESTRICTED, *options, images[image], *command
        )

    return run


@each_image
def test_the_doctor_is_content_inside(run: Run, image: str) -> None:
    found = {each["what"]: each for each in json.loads(run(image, "tandem", "doctor", "--json"))}

    for what, finding in found.items():
        assert finding["found"] or not finding["needed"], what
    inside = {name for name in ("TensorFlow", "PyTorch") if found[name]["found"]}
    assert inside == {"core": set(), "tf": {"TensorFlow"}, "torch": {"PyTorch"}}[image]


@each_image
def test_it_is_run_by_a_number_that_is_not_roots_and_says_what_it_is(
    run: Run, image_labels: dict[str, dict[str, str]], image: str
) -> None:
    assert run(image, "id", "-u") == "10001"
    labels = image_labels[image]
    assert labels["org.opencontainers.image.version"] == pipelines.__version__
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert labels["org.opencontainers.image.revision"].startswith(revision)


@each_image
def test_nothing_that_builds_is_left_in_it(run: Run, image: str) -> None:
    tools = "gcc g++ cc c++ make cmake git uv"
    assert run(image, "sh", "-c", f"for tool in {tools}; do command -v $tool; done; true") == ""


@each_image
def test_nothing_of_the_site_that_built_it_is_left_in_it(
    run: Run, images: dict[str, str], image: str
) -> None:
    assert run(image, "sh", "-c", "ls -d /src /opt/uv /wheel 2>/dev/null; true") == ""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", images[image])
    told = history + docker("image", "inspect", "--format", "{{json .Config}}", images[image])
    for setting in ("INDEX", "FIND_LINKS", "CERT", "site"):
        assert setting not in told


def test_ingestion_and_both_frameworks_training_share_a_volume(run: Run, tmp_path: Path) -> None:
    """The steps of a study, each in its image, over one folder, as over a claim in a cluster."""
    tmp_path.chmod(0o777)
    options = (f"--volume={tmp_path}:/mnt/tandem",)
    sets = [part for setting in SMALL for part in ("--set", setting)]

    run("core", "tandem", "ingest", "--config", QUICKSTART, *sets, options=options)
    results: dict[str, dict[str, Any]] = {}
    for framework in ("tf", "torch"):
        results[framework] = json.loads(
            run(
                framework,
                *("tandem", "train", framework, "--json", "--config", QUICKSTART, *sets),
                options=options,
            )
        )

    for framework, result in results.items():
        assert result["examples_per_second"] > 0, framework
        assert 0 <= result["eval_accuracy"] <= 1
    losses = [result["eval_loss"] for result in results.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_tracking_server_starts_from_core_without_a_writable_root(
    run: Run,
) -> None:
    started = (
        "mlflow server --port 5000 --workers 1 --backend-store-uri sqlite:////tmp/mlflow.db "
        ">/tmp/log 2>&1 & for i in $(seq 120); do sleep 1; python -c "
        "\"import urllib.request as u; print(u.urlopen('http://localhost:5000/health').read())\" "
        "2>/dev/null && exit 0; done; cat /tmp/log; exit 1"
    )
    assert run("core", "sh", "-c", started) == "b'OK'"
