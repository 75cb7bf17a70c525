"""The releases of packages, as the index that this machine installs from tells them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pipelines.ledger.tools import Tools, in_parallel
from pipelines.ledger.unchecked import Unchecked

__all__ = ["Release", "newest_of", "releases_of"]

_SECONDS = 10.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Release:
    """One version of a package."""

    version: Version
    uploaded: datetime | None
    """Of its first file; None: the index does not tell."""
    has_wheel: bool
    """For Linux on x86-64 and Python 3, whichever glibc and Python."""
    yanked: bool
    """Whether it was taken back."""


def releases_of(packages: Iterable[str], tools: Tools) -> dict[str, dict[Version, Release]]:
    """Every package's releases by version.

    One that the index does not have is left out.

    Raises:
        Unchecked: if the index does not answer.
    """
    import requests
    from pypi_simple import PYPI_SIMPLE_ENDPOINT, PyPISimple

    names = list(packages)
    session = requests.Session()
    if tools.certificates:
        session.verify = tools.certificates
    with PyPISimple(tools.index or PYPI_SIMPLE_ENDPOINT, session=session) as client:
        ask = partial(_ask, client)
        first = [ask(name) for name in names[:1]]  # alone, so that no answer costs one wait only
        found = [*first, *in_parallel(ask, names[1:], _AT_ONCE)]
    return {name: each for name, each in zip(names, found, strict=True) if each}


def newest_of(releases: Mapping[Version, Release]) -> Release | None:
    """The highest version that stands: neither a candidate, nor taken back."""
    final = [each for each in releases.values() if not each.version.is_prerelease | each.yanked]
    return max(final, key=lambda each: each.version, default=None)


def _ask(client: object, name: str) -> dict[Version, Release]:
    import requests
    from pypi_simple import NoSuchProjectError, PyPISimple, UnsupportedContentTypeError

    assert isinstance(client, PyPISimple)
    try:
        page = client.get_project_page(name, timeout=_SECONDS)
    except NoSuchProjectError:
        return {}
    except (requests.RequestException, UnsupportedContentTypeError):
        raise Unchecked("the package index does not answer") from None
    releases: dict[Version, Release] = {}
    for file in page.packages:
        try:
            version = Version(file.version or "")
        except InvalidVersion:  # of the years before there was a rule
            continue
        known = releases.get(version, Release(version, None, has_wheel=False, yanked=True))
        times = [each for each in (known.uploaded, file.upload_time) if each]
        releases[version] = Release(
            version,
            min(times, default=None),
            has_wheel=known.has_wheel or _is_wheel_for_linux(file.filename),
            yanked=known.yanked and file.is_yanked,
        )
    return releases


def _is_wheel_for_linux(filename: str) -> bool:
    try:
        _, _, _, tags = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return False
    return any(
        tag.interpreter.startswith(("py3", "cp3"))
        and (tag.platform == "any" or ("linux" in tag.platform and "x86_64" in tag.platform))
        for tag in tags
    )
