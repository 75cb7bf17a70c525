"""Which Python interpreter runs which framework.

TensorFlow and PyTorch live in environments of their own, since their pins exclude each other.
A framework's interpreter is, in this order: the one named by ``TANDEM_TF_PYTHON`` or
``TANDEM_TORCH_PYTHON``; the environment that ``make env`` made; the running one, if the framework
is installed there (as in a container image).
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from pipelines.errors import InputError
from pipelines.strategies import FRAMEWORK_TITLES, Framework

__all__ = ["PROJECT_ROOT", "find_python", "installed_digest"]

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_FOLDERS: dict[Framework, str] = {"tf": ".venv-tf", "torch": ".venv"}
_MODULES: dict[Framework, str] = {"tf": "tensorflow", "torch": "torch"}


def find_python(framework: Framework) -> Path:
    """The interpreter that can import the framework.

    Raises:
        InputError: if there is none, naming the make target that makes one.
    """
    variable = f"TANDEM_{framework.upper()}_PYTHON"
    if variable in os.environ:
        named = Path(os.environ[variable])
        if not (named.is_file() and os.access(named, os.X_OK)):
            raise InputError(f"{variable}: {named} is not an interpreter that can be run")
        return named
    made = PROJECT_ROOT / _FOLDERS[framework] / "bin" / "python"
    if made.exists():
        return made
    if importlib.util.find_spec(_MODULES[framework]):
        return Path(sys.executable)
    raise InputError(
        f"{FRAMEWORK_TITLES[framework]}'s environment {made.parent.parent} is missing; "
        f"make it with `make env-{framework}`"
    )


@cache
def installed_digest(python: Path) -> str:
    """SHA-256 of an interpreter's version and of the packages and versions in its environment.

    What a framework computes may change with any of them. No package is imported for it.
    """
    ask = (
        "import platform, sysconfig; "
        "print(platform.python_version(), sysconfig.get_path('purelib'))"
    )
    said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout
    version, _, folder = said.strip().partition(" ")
    packages = sorted(found.name for found in Path(folder).glob("*.dist-info"))
    return hashlib.sha256("\n".join([version, *packages]).encode()).hexdigest()
