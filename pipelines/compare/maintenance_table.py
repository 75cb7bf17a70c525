"""The ledger in words, the same on the page and on the terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.compare import formats
from pipelines.ledger.model import FileCode, Image, Ledger
from pipelines.metrics import METRICS
from pipelines.strategies import Framework

__all__ = [
    "TITLES",
    "Row",
    "TwinFile",
    "details_of",
    "figure",
    "reasons_of",
    "rows_of",
    "twin_files",
]

TITLES: dict[str, str] = {
    "direct_dependencies": "Packages asked for",
    "total_dependencies": "All that come with them",
    "install_bytes": "Installed",
    "image_bytes": "Container image",
    "image_build_seconds": "Building that image",
    "bounded_requirements": "Requirements with an upper bound",
    "held_back_share": "Of these, exclude the newest release",
    "resolvable_share": "Platforms that can be resolved for",
    "libyears_behind": "Behind the newest releases",
    "days_since_release": "Longest without a release",
    "known_vulnerabilities": "Known vulnerabilities",
    "deprecation_warnings": "Deprecation warnings in its tests",
    "code_lines": "Lines of the twin",
    "cyclomatic_complexity": "Cyclomatic complexity",
    "glue_share": "Glue among the lines",
    "config_fields": "Fields of configuration",
    "manifest_lines": "Lines of manifests",
}
"""Metric -> what it is called; the rows, in their order."""

_FORMATS: dict[str, Callable[[float], str]] = {
    "count": lambda value: f"{value:,.0f}",
    "lines": lambda value: f"{value:,.0f}",
    "B": formats.gibibytes,
    "s": formats.seconds,
    "share": lambda value: formats.percent(value, 0),
    "years": lambda value: f"{value:.1f} libyears",
    "days": lambda value: f"{value:,.0f} days",
}


@dataclass(frozen=True)
class Row:
    """One measure, side by side."""

    title: str
    cells: dict[Framework, str]
    """The figure, or that it was not checked."""
    reasons: dict[Framework, str]
    """Why it was not, where that was said."""


@dataclass(frozen=True)
class TwinFile:
    """One file of either twin, or of both."""

    file: str
    role: str
    lines: dict[Framework, int | None]
    complexity: dict[Framework, int | None]


def figure(metric: str, value: float | None) -> str:
    """A figure of the ledger with its unit."""
    return formats.UNKNOWN if value is None else _FORMATS[METRICS[metric].unit](value)


def rows_of(
    metrics: Mapping[Framework, Mapping[str, float]],
    not_checked: Mapping[Framework, Mapping[str, str]],
) -> list[Row]:
    """A row for each measure that some side has, or says why it has not."""
    rows = []
    for name, title in TITLES.items():
        reasons = {side: why[name] for side, why in not_checked.items() if name in why}
        cells = {
            side: "not checked" if side in reasons else figure(name, found.get(name))
            for side, found in metrics.items()
        }
        if reasons or any(name in found for found in metrics.values()):
            rows.append(Row(title, cells, reasons))
    return rows


def reasons_of(rows: Sequence[Row]) -> list[str]:
    """Why measures were not checked: a line for each reason, with the measures it holds for."""
    measures: dict[str, list[str]] = {}
    for row in rows:
        shared = len(row.reasons) == len(row.cells) and len(set(row.reasons.values())) == 1
        for side, why in row.reasons.items():
            title = row.title if shared else f"{row.title} ({formats.title(side)})"
            if title not in measures.setdefault(why, []):
                measures[why].append(title)
    return [f"{', '.join(titles)}: not checked: {why}" for why, titles in measures.items()]


def twin_files(files: Mapping[Framework, Sequence[FileCode]]) -> list[TwinFile]:
    """Each file against its twin, by path."""
    by_name = {side: {each.file: each for each in found} for side, found in files.items()}
    rows = []
    for path in sorted({path for found in by_name.values() for path in found}):
        both = {side: found.get(path) for side, found in by_name.items()}
        rows.append(
            TwinFile(
                file=path,
                role=next(each.role for each in both.values() if each),
                lines={side: each.lines if each else None for side, each in both.items()},
                complexity={
                    side: each.cyclomatic_complexity if each else None
                    for side, each in both.items()
                },
            )
        )
    return rows


def details_of(ledger: Ledger) -> dict[str, list[str]]:
    """What one side's figures rest on: title -> items, the weightiest first; none is left out."""
    failed: dict[tuple[str, str], list[str]] = {}
    for each in ledger.resolutions:
        if not each.resolved:
            failed.setdefault((each.glibc, each.reason), []).append(each.python)
    told = {
        "Cannot be resolved for": [
            f"glibc {glibc} (Python {', '.join(pythons)}): {reason}"
            for (glibc, reason), pythons in failed.items()
        ],
        "Without a wheel for Linux": ledger.built_from_source,
        "Held back": [
            f"{bound.of} {bound.excluded} by {bound.by} ({bound.specifier})"
            for bound in ledger.bounds
            if bound.excluded
        ],
        "Last releases of what is asked for": [
            f"{age.package} {age.newest}, {age.days_since_release} days ago"
            for age in ledger.ages
            if age.direct
        ],
        "Farthest behind, in libyears": [
            f"{age.package} {age.version}, newest {age.newest} ({age.libyears:.1f})"
            for age in ledger.ages
            if age.libyears > 0
        ],
        "Age not known": ledger.unknown_packages,
        "Known vulnerabilities": [
            f"{each.package} {each.version}: {each.id}, mended in {' and '.join(each.fixed_in)}"
            if each.fixed_in
            else f"{each.package} {each.version}: {each.id}, not mended yet"
            for each in ledger.vulnerabilities
        ],
        "Unknown to the advisory service": ledger.not_audited,
        "Container image": [_image(ledger.image)] if ledger.image else [],
        "Deprecation warnings": [f"{each.module}: {each.message}" for each in ledger.warnings],
    }
    return {title: items for title, items in told.items() if items}


def _image(image: Image) -> str:
    commit, _, modified = image.revision.partition("-")
    return (
        f"{image.tag} for {image.accelerator}, by Docker {image.engine} at commit {commit[:12]}"
        f"{', files of which were modified' if modified else ''}"
    )
