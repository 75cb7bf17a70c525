"""A Docker engine of the tests' own, and the image that all others start from.

Where an engine answers already (``DOCKER_HOST``, or the usual socket), it is used. Else root starts
a private one: no network bridge, no iptables, its data in a folder that goes with it. Containers
then take ``--network host`` or ``none``, or a network that a test makes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BASE_IMAGE", "docker", "engine", "make_base_image", "obstacle"]

BASE_IMAGE = "python:3.11-slim-bookworm"
_SECONDS_TO_START = 60.0
_SUITE = "bookworm"
_PACKAGES = "ca-certificates,python3,python3-dev,python3-pip,python3-venv"


def docker(*arguments: str | Path, timeout: float | None = None, check: bool = True) -> str:
    """Run the client against the engine that ``DOCKER_HOST`` names; its standard output.

    Raises:
        subprocess.CalledProcessError: if it failed; what it said is on standard error already.
    """
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        env=os.environ | {"DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")},
        text=True,
        timeout=timeout,
        check=check,
    )
    return done.stdout.strip()


def obstacle() -> str:
    """What keeps this machine from running containers, if anything."""
    if shutil.which("docker") is None:
        return "no docker command here"
    if _answers():
        return ""
    if shutil.which("dockerd") is None:
        return "no Docker engine answers, and there is no dockerd to start one"
    if os.geteuid() != 0:
        return "no Docker engine answers, and only root can start one"
    return ""


@contextmanager
def engine() -> Iterator[None]:
    """An engine that answers, in ``DOCKER_HOST``; one that was started here ends with the block.

    Its data lies in ``TANDEM_DOCKER_DATA``, where images then outlive the block, else in a
    temporary folder.

    Raises:
        RuntimeError: if it does not start, with its last lines.
    """
    if _answers():
        yield
        return
    given = os.environ.get("TANDEM_DOCKER_DATA")
    folder = Path(given or tempfile.mkdtemp(prefix="tandem-docker-"))
    folder.mkdir(parents=True, exist_ok=True)
    socket = f"unix://{folder}/docker.sock"
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/pid",
                f"--host={socket}",
                "--iptables=false",
                "--bridge=none",
                "--default-ulimit=nofile=8192:8192",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = socket
    try:
        deadline = time.monotonic() + _SECONDS_TO_START
        while not _answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        process.terminate()  # ends containers and containerd too
        process.wait(_SECONDS_TO_START)
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
        if given is None:
            shutil.rmtree(folder, ignore_errors=True)


def make_base_image() -> str:
    """See that the engine has ``BASE_IMAGE``; which of three ways it came by it.

    ``present``; ``pulled``; or ``stand-in``: Debian's own Python under the official image's name,
    made by debootstrap where no registry can be reached.

    Raises:
        RuntimeError: if it can neither be pulled nor made.
    """
    if docker("image", "ls", "--quiet", BASE_IMAGE):
        return "present"
    if docker("pull", "--quiet", BASE_IMAGE, check=False):
        return "pulled"
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise RuntimeError(f"{BASE_IMAGE} cannot be pulled, nor made here: that takes debootstrap")
    with tempfile.TemporaryDirectory(prefix="tandem-base-") as folder:
        root = Path(folder) / "root"
        made = subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                f"--include={_PACKAGES}",
                _SUITE,
                root,
                *_mirror(),
            ],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise RuntimeError(f"debootstrap failed: {made.stdout[-2000:]}")
        for settings in Path("/etc/apt/apt.conf.d").glob("99*"):  # a site's ways to its mirror
            shutil.copy(settings, root / "etc/apt/apt.conf.d")
        shutil.rmtree(root / "var/cache/apt/archives")
        shutil.rmtree(root / "var/lib/apt/lists")
        packed = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(["docker", "import", "-", BASE_IMAGE], stdin=packed.stdout, check=True)
        if packed.wait() != 0:
            raise RuntimeError("tar could not pack the stand-in")
    return "stand-in"


def _mirror() -> list[str]:
    """Where this machine's apt takes the suite from, as debootstrap's argument."""
    asked = ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"]
    told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return re.findall(rf"^{_SUITE} (\S+)", told, re.MULTILINE)[:1]


def _answers() -> bool:
    asked = subprocess.run(["docker", "version"], capture_output=True, timeout=60, check=False)
    return asked.returncode == 0


if __name__ == "__main__":  # a shell with an engine: python -m tests.docker.engine bash
    with engine():
        print(f"{BASE_IMAGE}: {make_base_image()}", file=sys.stderr)
        raise SystemExit(subprocess.run(sys.argv[1:] or ["bash"]).returncode)
