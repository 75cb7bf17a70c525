"""A Docker engine with the project's images in it, for the tests that run containers."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

import pipelines
from pipelines.environments import PROJECT_ROOT
from tests.docker.engine import docker, engine, make_base_image, obstacle

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
