"""Which Python interpreter runs which framework.

TensorFlow and PyTorch live in environments of their own, since their pins exclude each other.
A framework's interpreter is, in this order: the one named by ``TANDEM_TF_PYTHON`` or
``TANDEM_TORCH_PYTHON``; the environment that ``make env`` made; the running one, if the framework
is installed there (as in a container image).
"""

import importlib.util
import os
import sys
from pathlib import Path

from pipelines.errors import InputError
from pipelines.strategies import FRAMEWORK_TITLES, Framework

__all__ = ["PROJECT_ROOT", "find_python"]

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
