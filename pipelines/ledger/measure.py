"""One side's ledger: what this machine can tell by itself, and what it asks the network for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from packaging.version import Version

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.audit import audit
from pipelines.ledger.bounds import bounds_among, held_back
from pipelines.ledger.code import GLUE, Code, code_of, glue_share, total_of
from pipelines.ledger.configuration import config_fields, dag_lines, script_lines
from pipelines.ledger.freshness import ages_of, days_since_release, libyears
from pipelines.ledger.images import image_of
from pipelines.ledger.index import Release, releases_of
from pipelines.ledger.model import FileCode, Ledger
from pipelines.ledger.packages import Packages
from pipelines.ledger.resolver import never_wheels, resolutions_of
from pipelines.ledger.tools import Tools, find_tools
from pipelines.ledger.unchecked import Unchecked
from pipelines.ledger.warned import read_warnings
from pipelines.metrics import METRICS
from pipelines.strategies import Framework

__all__ = ["NETWORKED", "file_table", "measure_here", "with_network", "without_network"]

NETWORKED = (
    "held_back_share",
    "resolvable_share",
    "libyears_behind",
    "days_since_release",
    "known_vulnerabilities",
)
"""The entries that the network is needed for."""
FROM_CACHE = "layers came from the cache; run `make images ARGS=--no-cache`"
OnProgress = Callable[[str], None]


@dataclass
class _Entries:
    """Entries as they come in: figures, reasons, and the details behind the figures."""

    metrics: dict[str, float] = field(default_factory=dict)
    not_checked: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def take(self, work: Callable[[], Mapping[str, float]], *names: str) -> None:
        """Take the figures of these names from ``work``, or else the reason for having none."""
        try:
            found = work()
        except Unchecked as why:
            self.not_checked |= dict.fromkeys(names, str(why))
            return
        self.metrics |= {name: found[name] for name in names if name in found}

    def into(self, ledger: Ledger) -> Ledger:
        """A ledger with these too, in the order of the metrics table."""
        found = ledger.metrics | self.metrics
        metrics = {name: found[name] for name in METRICS if name in found}
        not_checked = {
            name: why
            for name, why in (ledger.not_checked | self.not_checked).items()
            if name not in metrics
        }
        return ledger.model_copy(
            update={**self.details, "metrics": metrics, "not_checked": not_checked}
        )


def measure_here(
    framework: Framework, packages: Packages, known_dag_lines: int | None = None
) -> Ledger:
    """What needs no network.

    Unless the lines of the DAG are known, it is compiled, which takes the seconds of importing the
    framework.

    Raises:
        InputError: if ``out/images.json`` is not what ``make images`` writes.
    """
    files = code_of(PROJECT_ROOT / f"{framework}_pipeline")
    code = total_of(files)
    entries = _Entries(
        metrics={
            "direct_dependencies": len(packages.direct),
            "total_dependencies": len(packages.total),
            "install_bytes": packages.install_bytes,
            "bounded_requirements": len(bounds_among(packages.demands)),
            "code_lines": code.lines,
            "cyclomatic_complexity": code.cyclomatic_complexity,
            "glue_share": glue_share(files),
            "config_fields": config_fields(framework),
        }
    )

    def warned() -> dict[str, float]:
        found = entries.details["warnings"] = read_warnings(framework, packages.modules)
        return {"deprecation_warnings": len(found)}

    def manifests() -> dict[str, float]:
        dag = dag_lines(framework) if known_dag_lines is None else known_dag_lines
        entries.details["dag_lines"] = dag
        return {"manifest_lines": dag + script_lines(framework)}

    def built() -> dict[str, float]:
        image = entries.details["image"] = image_of(framework)
        found: dict[str, float] = {"image_bytes": image.bytes}
        if image.build_seconds is None:
            entries.not_checked["image_build_seconds"] = FROM_CACHE
        else:
            found["image_build_seconds"] = image.build_seconds
        return found

    entries.take(warned, "deprecation_warnings")
    entries.take(built, "image_bytes", "image_build_seconds")
    entries.take(manifests, "manifest_lines")
    ledger = Ledger(
        framework=framework,
        created=_now().isoformat(timespec="seconds"),
        metrics={},
        not_checked={},
        asked=list(packages.asked),
        files=file_table(files),
        bounds=bounds_among(packages.demands),
    )
    return entries.into(ledger)


def file_table(files: Mapping[str, Code]) -> list[FileCode]:
    """A row for each file that has any code."""
    return [
        FileCode(
            file=path,
            lines=file.lines,
            cyclomatic_complexity=file.cyclomatic_complexity,
            role="glue" if path.removesuffix(".py") in GLUE else "work",
        )
        for path, file in files.items()
        if file.lines
    ]


def without_network(ledger: Ledger, reason: str) -> Ledger:
    """The ledger with a reason in place of each entry that the network is needed for."""
    return _Entries(not_checked=dict.fromkeys(NETWORKED, reason)).into(ledger)


def with_network(
    ledger: Ledger,
    packages: Packages,
    on_progress: OnProgress = lambda detail: None,
) -> Ledger:
    """The ledger with what the package index and the advisory service say; takes a minute.

    Where the index does not answer, that is found out in seconds, and said.
    """
    try:
        on_progress("asking the package index")
        tools = find_tools()
        releases = releases_of(packages.total, tools)
    except Unchecked as why:
        return without_network(ledger, str(why))
    now = _now()
    entries = _Entries(details={"networked": now.isoformat(timespec="seconds")})
    _take_bounds(entries, packages, releases)
    _take_ages(entries, packages, releases, now)
    _take_resolutions(entries, packages, releases, tools, on_progress)
    on_progress("asking for known vulnerabilities")
    _take_vulnerabilities(entries, packages, tools)
    return entries.into(ledger)


_Releases = Mapping[str, Mapping[Version, Release]]


def _take_bounds(entries: _Entries, packages: Packages, releases: _Releases) -> None:
    bounds = held_back(bounds_among(packages.demands), releases)
    entries.details["bounds"] = bounds
    known = [bound for bound in bounds if bound.of in releases]

    def share() -> dict[str, float]:
        if not known:
            raise Unchecked("no requirement with an upper bound")
        return {"held_back_share": sum(bound.excluded is not None for bound in known) / len(known)}

    entries.take(share, "held_back_share")


def _take_ages(entries: _Entries, packages: Packages, releases: _Releases, now: datetime) -> None:
    def ages() -> dict[str, float]:
        found = entries.details["ages"] = ages_of(packages.versions, packages.direct, releases, now)
        known = {age.package for age in found}
        entries.details["unknown_packages"] = [
            package for package in packages.total if package not in known
        ]
        quiet = days_since_release(found)
        if quiet is None:
            raise Unchecked("the package index has none of the direct dependencies")
        return {"libyears_behind": libyears(found), "days_since_release": quiet}

    entries.take(ages, "libyears_behind", "days_since_release")


def _take_resolutions(
    entries: _Entries,
    packages: Packages,
    releases: _Releases,
    tools: Tools,
    on_progress: OnProgress,
) -> None:
    def resolved() -> dict[str, float]:
        found, sources = resolutions_of(
            packages.asked, never_wheels(packages.versions, releases), tools, on_progress
        )
        entries.details |= {"resolutions": found, "built_from_source": sources}
        return {"resolvable_share": sum(each.resolved for each in found) / len(found)}

    entries.take(resolved, "resolvable_share")


def _take_vulnerabilities(entries: _Entries, packages: Packages, tools: Tools) -> None:
    def audited() -> dict[str, float]:
        found, asked, unknown = audit(packages.versions, tools)
        entries.details |= {"vulnerabilities": found, "audited": asked, "not_audited": unknown}
        return {"known_vulnerabilities": len(found)}

    entries.take(audited, "known_vulnerabilities")


def _now() -> datetime:
    return datetime.now(UTC)
