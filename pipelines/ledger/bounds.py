"""Upper bounds on versions: how many there are, and which of them hold the resolver back."""

from collections.abc import Iterable, Mapping

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pipelines.ledger.index import Release, newest_of
from pipelines.ledger.model import Bound
from pipelines.ledger.packages import Demand

__all__ = ["bounds_among", "held_back"]

_UPPER = {"<", "<=", "==", "===", "~="}


def bounds_among(demands: Iterable[Demand]) -> list[Bound]:
    """The requirements that no version from some point on can meet."""
    return [
        Bound(by=demand.by, of=demand.of, specifier=upper)
        for demand in demands
        if (upper := _upper_part(demand.specifier))
    ]


def held_back(
    bounds: Iterable[Bound], releases: Mapping[str, Mapping[Version, Release]]
) -> list[Bound]:
    """The same bounds, each with the newest final release if it excludes that one."""
    judged = []
    for bound in bounds:
        newest = newest_of(releases.get(canonicalize_name(bound.of), {}))
        excluded = newest is not None and newest.version not in SpecifierSet(bound.specifier)
        judged.append(
            bound.model_copy(
                update={"excluded": str(newest.version) if newest and excluded else None}
            )
        )
    return judged


def _upper_part(specifier: str) -> str:
    """Those of a requirement's conditions that bound it from above."""
    return ",".join(
        sorted(str(each) for each in SpecifierSet(specifier) if each.operator in _UPPER)
    )
