"""Warnings of deprecation that a framework's side gives while its twin's tests run.

pytest's hooks in ``tests/conftest.py`` hand them to a ``Watch``, which keeps them once a twin's
tests have run whole; the ledger reads them as long as the code, the tests and the packages are the
same.
"""

import re
import sys
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.environments import PROJECT_ROOT, find_python, installed_digest
from pipelines.ledger.model import GivenWarning
from pipelines.ledger.unchecked import Unchecked
from pipelines.parity.software import code_digest
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["Watch", "read_warnings"]

_FOLDER = PROJECT_ROOT / "out" / "ledger"
_DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
_PLACE = re.compile(r"^From \S+:\d+: |(?<=0x)[0-9a-f]+")
"""Of a call, as TensorFlow names it, and of an object in memory: what is another each time."""

_TOLD = {
    "code_sha256": "the code",
    "tests_sha256": "a test",
    "packages_sha256": "what is installed",
}


class _Made(BaseModel):
    """What warnings are those of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code_sha256: str
    tests_sha256: str
    packages_sha256: str

    @classmethod
    def of(cls, framework: Framework, python: Path, root: Path) -> "_Made":
        return cls(
            code_sha256=code_digest(root),
            tests_sha256=code_digest(root, [f"tests/{framework}_pipeline"]),
            packages_sha256=installed_digest(python),
        )


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    made: _Made
    warnings: list[GivenWarning]


class Watch:
    """What one session of pytest gives: each warning once, and which files of tests have run."""

    def __init__(self, root: Path = PROJECT_ROOT, folder: Path = _FOLDER) -> None:
        self._root, self._folder = root, folder
        self._given: dict[GivenWarning, set[str]] = {}
        self._ran: set[str] = set()

    def warned(self, category: type[Warning], message: str, file: str, test: str) -> None:
        """Note a warning that ``file`` gave; ``test`` is pytest's name, empty while collecting."""
        if issubclass(category, _DEPRECATIONS):
            given = GivenWarning(
                category=category.__name__,
                module=self._module(file),
                message=_PLACE.sub("", (message.strip().splitlines() or [""])[0]),
            )
            self._given.setdefault(given, set()).add(test)

    def ran(self, test: str) -> None:
        """Note that a test has run."""
        self._ran.add(test.partition("::")[0])

    def keep(self) -> list[Path]:
        """Keep the warnings of each framework whose twin's files of tests have all run."""
        kept = []
        for framework in FRAMEWORKS:
            tests = self._root / "tests" / f"{framework}_pipeline"
            files = {path.relative_to(self._root).as_posix() for path in tests.rglob("test_*.py")}
            if not files or not files <= self._ran:
                continue
            place = tests.relative_to(self._root).as_posix()
            found = [
                given
                for given, names in self._given.items()
                if any(not name or name.startswith(f"{place}/") for name in names)
            ]
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / _name(framework)
            found.sort(key=lambda given: (given.module, given.category, given.message))
            made = _Made.of(framework, Path(sys.executable), self._root)
            path.write_text(_Kept(made=made, warnings=found).model_dump_json(indent=2))
            kept.append(path)
        return kept

    def _module(self, file: str) -> str:
        """The top-level module that a file belongs to, where it is a package's or the project's."""
        _, installed, inside = file.rpartition("/site-packages/")
        if not installed and file.startswith(f"{self._root}/"):
            inside = file.removeprefix(f"{self._root}/")
        return inside.partition("/")[0].removesuffix(".py")


def read_warnings(
    framework: Framework,
    modules: Collection[str],
    folder: Path = _FOLDER,
    root: Path = PROJECT_ROOT,
) -> list[GivenWarning]:
    """Those that the twin and the packages with these modules gave; others are the shared frame's.

    Raises:
        Unchecked: if the twin's tests, as they are, have not run whole on the present code and
            packages.
    """
    try:
        kept = _Kept.model_validate_json((folder / _name(framework)).read_bytes())
    except FileNotFoundError:
        raise Unchecked(f"run `make test-{framework}`") from None
    except ValidationError:
        raise Unchecked(f"run `make test-{framework}` again") from None
    now = _Made.of(framework, find_python(framework), root)
    for digest, told in _TOLD.items():
        if getattr(kept.made, digest) != getattr(now, digest):
            raise Unchecked(f"{told} has changed since the tests ran; run `make test-{framework}`")
    own = {*modules, f"{framework}_pipeline"}
    return [given for given in kept.warnings if given.module in own]


def _name(framework: Framework) -> str:
    return f"deprecations-{framework}.json"
