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

__all__ = ["EXTRAS", "Demand", "Packages", "packages_of", "packages_under"]

_PROJECT = canonicalize_name("tandem")
EXTRAS: dict[Framework, tuple[str, ...]] = {"tf": ("tf",), "torch": ("torch", "kubeflow")}
"""The project's extras that make a side. TFX brings the pipelines' own runner; PyTorch's is kfp."""


@dataclass(frozen=True)
class Demand:
    """What one package requires of another, as its metadata states it."""

    by: str
    """The package that requires; names are as the Python Package Index normalises them."""
    of: str
    """The package that is required."""
    specifier: str
    """Of its versions, such as ``<2,>=1.26``; empty for any."""


@dataclass(frozen=True)
class Packages:
    """What a side asks for, and what comes with it."""

    asked: tuple[str, ...]
    """The project's own requirements of the side, such as ``tfx[kfp]==1.21.0``, sorted."""
    direct: tuple[str, ...]
    """Their packages, sorted."""
    versions: Mapping[str, str]
    """Package -> version, of these and of all that they require in turn, as installed; by name."""
    demands: tuple[Demand, ...]
    """Of these packages on each other, where the platform and the extras asked for have them."""
    modules: frozenset[str]
    """Top-level names under which they are imported."""
    install_bytes: int
    """Of their files, without byte code that was compiled later."""

    @property
    def total(self) -> tuple[str, ...]:
        """The names of all of them, sorted."""
        return tuple(self.versions)


def packages_of(framework: Framework) -> Packages:
    """What the framework's side brings into its environment here.

    Raises:
        InputError: if the environment is missing, or does not have the project installed.
    """
    python = find_python(framework)
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    return packages_under([said.stdout.strip()], EXTRAS[framework])


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
    demands = set[Demand]()
    total = sorted(_closure(roots, installed, demands))
    return Packages(
        asked=tuple(sorted(_without_marker(root) for root in roots)),
        direct=tuple(sorted({canonicalize_name(root.name) for root in roots})),
        versions={name: installed[name].version for name in total},
        demands=tuple(sorted(demands, key=lambda demand: (demand.by, demand.of, demand.specifier))),
        modules=frozenset(module for name in total for module in _modules(installed[name])),
        install_bytes=sum(_bytes(installed[name]) for name in total),
    )


def _closure(
    roots: Iterable[Requirement],
    installed: Mapping[NormalizedName, Distribution],
    demands: set[Demand],
) -> set[NormalizedName]:
    """All installed packages that the roots lead to; what they require goes into ``demands``."""
    seen: set[tuple[NormalizedName, frozenset[str]]] = set()
    waiting = list(roots)
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name not in installed or (name, extras) in seen:
            continue
        seen.add((name, extras))
        required = list(_required(installed[name], extras, with_plain=True))
        demands.update(
            Demand(name, canonicalize_name(each.name), str(each.specifier)) for each in required
        )
        waiting += required
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


def _without_marker(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}{requirement.specifier}"


def _modules(package: Distribution) -> Iterator[str]:
    for file in package.files or ():
        first = file.parts[0]
        if first != ".." and not first.endswith((".dist-info", ".data")):
            yield first.partition(".")[0]


def _bytes(package: Distribution) -> int:
    files = (file.locate() for file in package.files or ())
    return sum(file.stat().st_size for file in files if file.is_file())  # type: ignore[attr-defined]
