import importlib.util
import sys
from pathlib import Path

import pytest

from pipelines import environments
from pipelines.environments import PROJECT_ROOT, find_python, installed_digest
from pipelines.errors import InputError

FOLDERS = {"tf": ".venv-tf", "torch": ".venv"}
FRAMEWORKS = pytest.mark.parametrize("framework", ["tf", "torch"])


@pytest.fixture(autouse=True)
def bare_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which ``make env`` was never called, on a machine without frameworks."""
    monkeypatch.setattr(environments, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for framework in FOLDERS:
        monkeypatch.delenv(f"TANDEM_{framework.upper()}_PYTHON", raising=False)
    return tmp_path


def make_environment(project: Path, framework: str) -> Path:
    python = project / FOLDERS[framework] / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    return python


def test_the_project_root_holds_the_project_file() -> None:
    assert (PROJECT_ROOT / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    ("framework", "title", "folder"),
    [("tf", "TensorFlow", ".venv-tf"), ("torch", "PyTorch", ".venv")],
)
def test_a_missing_environment_is_named_with_the_make_target_that_makes_it(
    bare_project: Path, framework: str, title: str, folder: str
) -> None:
    with pytest.raises(InputError) as raised:
        find_python(framework)

    assert str(raised.value) == (
        f"{title}'s environment {bare_project / folder} is missing; "
        f"make it with `make env-{framework}`"
    )


@FRAMEWORKS
def test_the_environment_that_make_env_made_is_found(bare_project: Path, framework: str) -> None:
    python = make_environment(bare_project, framework)

    assert find_python(framework) == python


@FRAMEWORKS
def test_the_running_interpreter_serves_where_the_framework_is_installed(
    monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    modules = {"tf": "tensorflow", "torch": "torch"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name == modules[framework] or None
    )

    assert find_python(framework) == Path(sys.executable)


@FRAMEWORKS
def test_an_interpreter_named_by_the_variable_comes_first(
    bare_project: Path, monkeypatch: pytest.MonkeyPatch, framework: str
) -> None:
    make_environment(bare_project, framework)
    named = bare_project / "interpreter"
    named.symlink_to(sys.executable)
    monkeypatch.setenv(f"TANDEM_{framework.upper()}_PYTHON", str(named))

    assert find_python(framework) == named


@pytest.mark.parametrize("what", ["absent", "not executable", "a folder"])
def test_a_variable_that_names_no_interpreter_is_refused(
    bare_project: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    named = bare_project / "interpreter"
    if what == "not executable":
        named.touch(mode=0o644)
    elif what == "a folder":
        named.mkdir()
    monkeypatch.setenv("TANDEM_TF_PYTHON", str(named))

    with pytest.raises(InputError) as raised:
        find_python("tf")

    assert str(raised.value) == (f"TANDEM_TF_PYTHON: {named} is not an interpreter that can be run")


def test_the_digest_of_what_is_installed_changes_with_releases_and_with_pythons(
    tmp_path: Path,
) -> None:
    """An interpreter that says only its version, and where its packages are."""
    packages = tmp_path / "site-packages"
    (packages / "torch-2.12.0.dist-info").mkdir(parents=True)

    def digest(name: str, version: str = "3.11.7") -> str:
        python = tmp_path / name
        python.write_text(f"#!/bin/sh\necho {version} {packages}\n")
        python.chmod(0o755)
        return installed_digest(python)

    before = digest("before")
    (packages / "torch").mkdir()  # a package's code: its release stands for it
    assert digest("same") == before
    assert digest("python", "3.11.8") != before
    (packages / "torch-2.12.0.dist-info").rename(packages / "torch-2.13.0.dist-info")
    assert digest("after") != before
