"""``tandem doctor``: what this machine has, and how to mend what it lacks."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.environments import PROJECT_ROOT, find_python
from pipelines.errors import InputError
from pipelines.hardware import available_cores, describe_hardware
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework

__all__ = ["Finding", "examine", "print_findings"]

_IMAGE_VARIABLE = "TANDEM_IMAGE"
"""Set in the images of infra/docker: the framework that one holds, or ``core``."""

_VERSIONS: dict[Framework, str] = {
    "tf": "from importlib.metadata import version as v; "
    "print('tensorflow', v('tensorflow') + ', tfx', v('tfx') + ', kfp', v('kfp'))",
    "torch": "from importlib.metadata import version as v; "
    "print('torch', v('torch') + ', lightning', v('lightning') + ', kfp', v('kfp'))",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    what: str
    found: bool
    needed: bool
    detail: str
    """What was found, or how to mend its absence."""


def examine() -> list[Finding]:
    """Look for all that Tandem can use; starts no framework."""
    free = shutil.disk_usage(PROJECT_ROOT).free / 1e9
    return [
        Finding("Python", True, True, platform.python_version()),
        Finding("hardware", True, True, describe_hardware()),
        Finding("cores to use", True, True, str(len(available_cores()))),
        Finding("free disk", free > 1, True, f"{free:.0f} GB"),
        *(_environment(framework) for framework in FRAMEWORKS),
        _program("nvidia-smi", "GPUs; without them everything runs on the CPU"),
        _program("docker", "container images"),
        _program("kubectl", "submitting to a cluster"),
    ]


def print_findings(findings: list[Finding]) -> None:
    """Print one line per finding."""
    table = Table(box=None, show_header=False)
    for finding in findings:
        mark = "[green]✓" if finding.found else "[red]✗" if finding.needed else "[dim]–"
        table.add_row(mark, finding.what, finding.detail)
    Console().print(table)


def _environment(framework: Framework) -> Finding:
    what = FRAMEWORK_TITLES[framework]
    image = os.environ.get(_IMAGE_VARIABLE, framework)
    if image != framework:
        return Finding(what, False, False, f"not in this image, which is tandem-{image}")
    try:
        python = find_python(framework)
    except InputError as error:
        return Finding(what, False, True, str(error))
    asked = subprocess.run([python, "-c", _VERSIONS[framework]], capture_output=True, text=True)
    if asked.returncode != 0:
        mend = f"{python} lacks packages; make it anew with `make clean-env env`"
        return Finding(what, False, True, mend)
    return Finding(what, True, True, f"{asked.stdout.strip()} ({python})")


def _program(name: str, purpose: str) -> Finding:
    found = shutil.which(name)
    detail = str(Path(found)) if found else f"not found; needed for {purpose}"
    return Finding(name, found is not None, False, detail)
