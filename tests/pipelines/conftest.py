"""Workers that train nothing, and a store for what they track."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config

# A worker that trains nothing; it runs as ``python -m <framework>_pipeline ...``.
PROLOGUE = """
import json, os, signal, sys, time
from pathlib import Path

arguments = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
output = Path(arguments["--output"])
rank = int(os.environ.get("RANK", 0))
attempt = 1 + len([*output.glob("attempt*")])

def emit(**event):
    print("::tandem " + json.dumps(event), flush=True)

def finish(**metrics):
    (output / "result.json").write_text(json.dumps({"metrics": metrics}))

"""


@pytest.fixture
def fake_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both frameworks' packages are found in ``tmp_path``, and run by this interpreter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TANDEM_TF_PYTHON", sys.executable)
    monkeypatch.setenv("TANDEM_TORCH_PYTHON", sys.executable)


@pytest.fixture
def write_worker(fake_frameworks: None, tmp_path: Path) -> Callable[..., None]:
    """Puts a program in the place of the named frameworks' packages, or of both."""

    def write(program: str, *frameworks: str) -> None:
        for framework in frameworks or ("tf", "torch"):
            package = tmp_path / f"{framework}_pipeline"
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()  # a package without one would lose to the real one
            (package / "__main__.py").write_text(PROLOGUE + program)

    return write


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the module, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def configure(
    uri: str, tmp_path: Path, load_quickstart: Callable[..., Config]
) -> Callable[..., Config]:
    def load(*overrides: str) -> Config:
        return load_quickstart(f"name={tmp_path.name}", f"tracking.uri={uri}", *overrides)

    return load


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    return configure()
