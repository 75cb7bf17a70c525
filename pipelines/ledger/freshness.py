"""How far a side's packages are behind, in libyears (libyear.com), and how quiet they are."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from packaging.version import Version

from pipelines.ledger.index import Release, newest_of
from pipelines.ledger.model import Age
from pipelines.ledger.unchecked import Unchecked

__all__ = ["ages_of", "days_since_release", "libyears"]

_SECONDS_PER_DAY = 86400
_DAYS_PER_YEAR = 365.25


def ages_of(
    versions: Mapping[str, str],
    direct: Iterable[str],
    releases: Mapping[str, Mapping[Version, Release]],
    now: datetime,
) -> list[Age]:
    """The age of each package that the index has, farthest behind first.

    A libyear is one year between the release that is installed and the newest final one. A package
    installed at a later date than its newest release, by a candidate or by a release on an older
    branch, is not behind.

    Raises:
        Unchecked: if the index does not tell when releases were uploaded.
    """
    ages, asked = [], set(direct)
    for package, version in versions.items():
        known = releases.get(package, {})
        newest = newest_of(known)
        installed = known.get(Version(Version(version).public))
        if newest is None or installed is None:
            continue
        if newest.uploaded is None or installed.uploaded is None:
            raise Unchecked("the package index does not tell when releases were uploaded")
        behind = _days(installed.uploaded, newest.uploaded) / _DAYS_PER_YEAR
        ages.append(
            Age(
                package=package,
                direct=package in asked,
                version=version,
                newest=str(newest.version),
                libyears=max(behind, 0.0) if newest.version > installed.version else 0.0,
                days_since_release=int(_days(newest.uploaded, now)),
            )
        )
    return sorted(ages, key=lambda age: (-age.libyears, age.package))


def libyears(ages: Iterable[Age]) -> float:
    """Of all packages, added up."""
    return sum(age.libyears for age in ages)


def days_since_release(ages: Iterable[Age]) -> int | None:
    """Of the direct dependency that has been without a release for longest; None: not known."""
    return max((age.days_since_release for age in ages if age.direct), default=None)


def _days(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() / _SECONDS_PER_DAY
