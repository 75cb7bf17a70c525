"""What the proof holds for besides the configuration: each framework's build, and the code."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT, find_python
from pipelines.errors import WorkError
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["code_digest", "describe_frameworks"]

_PACKAGES = ("pipelines", "tf_pipeline", "torch_pipeline")


def describe_frameworks(config: Config) -> dict[Framework, dict[str, str]]:
    """Each framework's ``framework_version`` and ``software_build``, as its own runs record them.

    Raises:
        WorkError: if a framework cannot be imported.
    """
    asked = {framework: _ask(config, framework) for framework in FRAMEWORKS}  # both at once
    answers: dict[Framework, dict[str, str]] = {}
    for framework, process in asked.items():
        said, complaint = process.communicate()
        if process.returncode != 0:
            last = (complaint.strip().splitlines() or ["no output"])[-1]
            raise WorkError(f"{framework}_pipeline does not say what it runs on: {last}")
        answers[framework] = json.loads(said.splitlines()[-1])
    return answers


def code_digest(root: Path = PROJECT_ROOT) -> str:
    """SHA-256 of the source code of both sides and of what they share."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _ask(config: Config, framework: Framework) -> "subprocess.Popen[str]":
    program = (
        f"import json; from {framework}_pipeline.strategy import describe_software; "
        "print(json.dumps(describe_software()))"
    )
    return subprocess.Popen(
        [str(find_python(framework)), "-c", program],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1", **config.child_variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
