"""The packages that a framework's side of the project brings into its environment."""

import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from pipelines.environments import find_python
from pipelines.errors import InputError
from pipelines.strategies import Framework

__all__ = ["Packages", "packages_of", "packages_under"]

_PROJECT = canonicalize_name("tandem")
_EXTRAS: dict[Framework, tuple[str, ...]] = {"tf": ("tf",), "torch": ("torch", "kubeflow")}
"""The project's extras that make a side. TFX brings the pipelines' own runner; PyTorch's is kfp."""


@dataclass(frozen=True)
class Packages:
    """What a side asks for, and what comes with it."""

    direct: tuple[str, ...]
    """By the project itself; names as the Python Package Index normalises them, sorted."""
    total: tuple[str, ...]
    """With all that these require in turn, as installed."""
    install_bytes: int
    """Of the files of ``total``, without byte code that was compiled later."""


def packages_of(framework: Framework) -> Packages:
    """What the framework's side brings into its environment here.

    Raises:
        InputError: if the environment is missing, or does not have the project installed.
    """
    python = find_python(framework)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    return packages_under([said.stdout.strip()], _EXTRAS[framework])


def packages_under(path: Iterable[str], extras: Iterable[str]) -> Packages:
    """What the project's ``extras`` bring into the packages' folders ``path``.

    Raises:
        InputError: if the project is not installed there.
    """
    folders = list(path)
    installed = {
        canonicalize_name(each.metadata["Name"]): each for each in distributions(path=folders)
    }
    if _PROJECT not in installed:
        raise InputError(f"{', '.join(folders)} has no {_PROJECT}; install it with `make env`")
    roots = list(_required(installed[_PROJECT], extras, with_plain=False))
    total = _closure(roots, installed)
    return Packages(
        direct=tuple(sorted({canonicalize_name(root.name) for root in roots})),
        total=tuple(sorted(total)),
        install_bytes=sum(_bytes(installed[name]) for name in total),
    )


def _closure(
    roots: Iterable[Requirement], installed: Mapping[NormalizedName, Distribution]
) -> set[NormalizedName]:
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name not in installed or (name, extras) in seen:
            continue
        seen.add((name, extras))
        waiting += _required(installed[name], extras, with_plain=True)
    return {name for name, _ in seen}


def _required(
    package: Distribution, extras: Iterable[str], *, with_plain: bool
) -> Iterator[Requirement]:
    """What a package with these extras requires on this platform; its plain ones too, or not."""
    asked = [{"extra": extra} for extra in extras]
    for line in package.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            if with_plain:
                yield requirement
        elif any(map(marker.evaluate, asked)):
            yield requirement


def _bytes(package: Distribution) -> int:
    files = (file.locate() for file in package.files or ())
    return sum(file.stat().st_size for file in files if file.is_file())  # type: ignore[attr-defined]
