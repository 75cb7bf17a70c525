"""What runs rest on besides their configuration: each framework's build, and the code."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT, find_python
from pipelines.errors import ComparisonRefusedError, WorkError
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = [
    "check_builds",
    "code_digest",
    "describe_framework",
    "describe_frameworks",
    "running_code",
]

_PACKAGES = ("pipelines", "tf_pipeline", "torch_pipeline")


def describe_frameworks(config: Config) -> dict[Framework, dict[str, str]]:
    """Each framework's version and build and its Python's version, as its own runs record them.

    Raises:
        WorkError: if a framework cannot be imported.
    """
    with ThreadPoolExecutor() as pool:  # both at once
        said = pool.map(partial(describe_framework, config), FRAMEWORKS)
        return dict(zip(FRAMEWORKS, said, strict=True))


def describe_framework(config: Config, framework: Framework) -> dict[str, str]:
    """What one framework says of itself; importing it takes seconds, so it is asked once.

    Raises:
        WorkError: if it cannot be imported.
    """
    variables = tuple(sorted(config.child_variables.items()))
    return dict(_ask(framework, find_python(framework), Path.cwd(), variables))


def check_builds(software: Mapping[Framework, Mapping[str, str]]) -> None:
    """Let frameworks pass whose builds are of one class, before anything is measured with them.

    ``software`` is what each says of itself.

    Raises:
        ComparisonRefusedError: if the runs of one would not be compared with the other's.
    """
    builds = {framework: said["software_build"] for framework, said in software.items()}
    if len(set(builds.values())) > 1:
        told = ", ".join(f"{framework}: {build}" for framework, build in builds.items())
        raise ComparisonRefusedError(
            f"software_build differs ({told}), so that what is measured would not be compared; "
            "give both frameworks builds of one class, or set training.device: cpu",
            {"software_build": sorted(builds.values())},
        )


def code_digest(root: Path = PROJECT_ROOT, packages: Iterable[str] = _PACKAGES) -> str:
    """SHA-256 of the source code of both sides and of what they share, or of some packages'."""
    digest = hashlib.sha256()
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@cache
def running_code() -> str:
    """The same of what this process runs: what lay there when it first asked."""
    return code_digest()


@cache
def _ask(
    framework: Framework, python: Path, folder: Path, variables: tuple[tuple[str, str], ...]
) -> Mapping[str, str]:
    program = (
        f"import json, platform; from {framework}_pipeline.strategy import describe_software; "
        "print(json.dumps(describe_software() | {'python_version': platform.python_version()}))"
    )
    asked = subprocess.run(
        [str(python), "-c", program],
        cwd=folder,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1", **dict(variables)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no output"])[-1]
        raise WorkError(f"{framework}_pipeline does not say what it runs on: {last}")
    said: dict[str, str] = json.loads(asked.stdout.splitlines()[-1])
    return said
