"""What the index's releases say of a side's packages: bounds, ages, sources."""

from datetime import UTC, datetime, timedelta

import pytest
from packaging.version import Version

from pipelines.ledger.bounds import bounds_among, held_back
from pipelines.ledger.freshness import ages_of, days_since_release, libyears
from pipelines.ledger.index import Release
from pipelines.ledger.packages import Demand
from pipelines.ledger.resolver import never_wheels
from pipelines.ledger.unchecked import Unchecked

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def releases(*known: tuple[str, float | None], wheel: bool = True) -> dict[Version, Release]:
    """Of versions and how many years ago they came."""
    return {
        Version(version): Release(
            Version(version),
            None if years is None else NOW - timedelta(days=365.25 * years),
            has_wheel=wheel,
            yanked=False,
        )
        for version, years in known
    }


def test_only_requirements_that_end_somewhere_are_bounds() -> None:
    specifiers = ("<2", "<=2,>=1", "==1.*", "~=1.4", "==1.0", "===1.0", "", ">=1", "!=1.5", ">0")
    demands = [Demand("one", "other", specifier) for specifier in specifiers]

    found = [bound.specifier for bound in bounds_among(demands)]

    assert found == ["<2", "<=2", "==1.*", "~=1.4", "==1.0", "===1.0"]


def test_a_bound_holds_back_if_it_excludes_the_newest_final_release() -> None:
    demands = [
        Demand("one", "thing", "<2"),
        Demand("two", "thing", "<3,!=2.5"),
        Demand("two", "unknown", "<3"),
    ]
    known = {"thing": releases(("1.9", 2), ("2.5", 1), ("3.0rc1", 0))}

    found = held_back(bounds_among(demands), known)

    assert [(bound.by, bound.excluded) for bound in found] == [
        ("one", "2.5"),
        ("two", None),  # that it is left out by name does not hold the resolver back for good
        ("two", None),
    ]


def test_libyears_are_the_years_from_the_installed_to_the_newest_release() -> None:
    known = {
        "behind": releases(("1.0", 3), ("1.5", 2), ("2.0", 0.5), ("3.0rc1", 0)),
        "newest": releases(("1.0", 4)),
        "branch": releases(("2.0", 2), ("1.9.1", 1)),
    }
    versions = {"behind": "1.0+cpu", "newest": "1.0", "branch": "1.9.1", "elsewhere": "1"}

    ages = ages_of(versions, ["newest", "behind"], known, NOW)

    assert [(age.package, age.newest, round(age.libyears, 6)) for age in ages] == [
        ("behind", "2.0", 2.5),
        ("branch", "2.0", 0.0),
        ("newest", "1.0", 0.0),
    ]
    assert libyears(ages) == pytest.approx(2.5)
    assert days_since_release(ages) == round(4 * 365.25)
    assert days_since_release(ages_of(versions, ["elsewhere"], known, NOW)) is None


def test_an_index_without_upload_times_leaves_ages_unchecked() -> None:
    with pytest.raises(Unchecked, match="does not tell when"):
        ages_of({"thing": "1.0"}, [], {"thing": releases(("1.0", None))}, NOW)


def test_what_has_no_wheel_for_any_linux_is_taken_as_source() -> None:
    known = {
        "source": releases(("1.0", 1), wheel=False),
        "wheel": releases(("1.0", 1)),
    }

    assert never_wheels({"source": "1.0", "wheel": "1.0", "elsewhere": "1.0"}, known) == ["source"]
