"""Whether a side's own requirements can be met, over Pythons and ages of glibc, as uv finds."""

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from itertools import count, product

from packaging.version import Version

from pipelines.ledger.index import Release, newest_of, releases_of
from pipelines.ledger.model import Resolution
from pipelines.ledger.tools import Tools, in_parallel, without_addresses
from pipelines.ledger.unchecked import Unchecked

__all__ = ["COMBINATIONS", "never_wheels", "resolutions_of"]

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
GLIBCS = ("2.28", "2.39")
"""Of the distributions of 2018 (RHEL 8, which PyTorch's wheels are made for) and 2024 (Ubuntu
24.04, which TFX 1.21's native parts are made for)."""
COMBINATIONS = tuple(product(PYTHONS, GLIBCS))
_SECONDS = 120.0
_AT_ONCE = 4
_LONGEST = 240
"""Characters of a reason; the resolver's can fill pages."""
_BUILDS = 20
"""Packages without wheels that one resolution may come upon."""
_NEEDS_A_WHEEL = re.compile(r"Wheels are required for `([^`]+)` because building from source")
_NO_ANSWER = ("Failed to fetch", "error sending request", "Failed to download", "dns error")


def never_wheels(
    versions: Mapping[str, str], releases: Mapping[str, Mapping[Version, Release]]
) -> list[str]:
    """The packages whose installed releases have no wheel for Linux, on any Python or glibc."""
    return [
        package
        for package, version in versions.items()
        if (release := releases.get(package, {}).get(Version(Version(version).public)))
        and not release.has_wheel
    ]


def resolutions_of(
    asked: Iterable[str],
    from_source: Iterable[str],
    tools: Tools,
    on_progress: Callable[[str], None] = lambda detail: None,
) -> tuple[list[Resolution], list[str]]:
    """Resolve the requirements on each of ``COMBINATIONS``, without any of our overrides.

    Wheels only, since a source that has to be compiled is no answer on a platform that was left
    out. But a release that has no wheel for Linux at all has left no Linux out: who installs it
    builds it everywhere. Those of ``from_source`` may be built, and what else turns out to be so.

    Returns:
        The outcomes, and the packages that were taken as source.

    Raises:
        Unchecked: if the index does not answer.
    """
    requirements = "".join(f"{line}\n" for line in asked)
    known = frozenset(from_source)
    done = count(1)

    def resolve(combination: tuple[str, str]) -> tuple[Resolution, frozenset[str]]:
        python, glibc = combination
        reason, sources = _resolve(requirements, python, glibc, known, tools)
        on_progress(f"resolved {next(done)} of {len(COMBINATIONS)} platforms")
        resolution = Resolution(
            python=python, glibc=glibc, resolved=reason is None, reason=reason or ""
        )
        return resolution, sources

    found = in_parallel(resolve, COMBINATIONS, _AT_ONCE)
    return [each for each, _ in found], sorted(known.union(*(sources for _, sources in found)))


def _resolve(
    requirements: str, python: str, glibc: str, sources: frozenset[str], tools: Tools
) -> tuple[str | None, frozenset[str]]:
    """Why the requirements cannot be met, or None; and what may be built, more of it by now."""
    said = ""
    for _ in range(_BUILDS):
        code, _, said = tools.run_uv(
            [
                *("pip", "compile", "--quiet", "--no-header", "--no-annotate", "--no-config"),
                *("--python-version", python),
                *("--python-platform", f"x86_64-manylinux_{glibc.replace('.', '_')}"),
                *("--only-binary", ":all:"),
                *(word for package in sorted(sources) for word in ("--no-binary", package)),
                "-",
            ],
            requirements,
            _SECONDS,
        )
        if code == 0:
            return None, sources
        if any(words in said for words in _NO_ANSWER):
            raise Unchecked("the package index does not answer")
        wanted = sorted(set(_NEEDS_A_WHEEL.findall(said)) - sources)
        found = releases_of(wanted, tools)
        more = [
            name
            for name in wanted
            if (newest := newest_of(found.get(name, {}))) and not newest.has_wheel
        ]
        if not more:
            break
        sources = sources.union(more)
    return _first_reason(said), sources


def _first_reason(said: str) -> str:
    """The first paragraph of what uv gives as the cause, as one line and without any address."""
    cause = said.partition("cause:")[2] or said.removeprefix("error:")
    words = " ".join(cause.strip().partition("\n\n")[0].split())
    return textwrap.shorten(
        without_addresses(words) or "no reason given", _LONGEST, placeholder=" …"
    )
