"""What keeping each side costs, as the newest tracked ledger has it."""

import json
from collections.abc import Callable, Iterable, Mapping

from pipelines.compare.part import Part
from pipelines.ledger.model import Ledger
from pipelines.runs import NOT_CHECKED_TAG, RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["Maintenance", "maintenance_of", "newest_ledgers"]


class Maintenance(Part):
    """One framework's side of the project; null means not measured, for the reason given."""

    direct_dependencies: int | None = None
    """Packages that the project itself asks for, on this side."""
    total_dependencies: int | None = None
    """With all that these bring in turn."""
    install_bytes: int | None = None
    """Of their files."""
    image_bytes: int | None = None
    """The framework's container image, as the engine keeps it."""
    image_build_seconds: float | None = None
    """Of building it, no layer from the cache."""
    bounded_requirements: int | None = None
    """Requirements of these packages on each other that have an upper bound."""
    held_back_share: float | None = None
    """Those of them that exclude the newest final release."""
    resolvable_share: float | None = None
    """Platforms on which the side's own requirements can be met: Pythons x ages of glibc."""
    libyears_behind: float | None = None
    """From each package's installed release to its newest, added up."""
    days_since_release: int | None = None
    """Of the direct dependency that has been without a release for longest."""
    known_vulnerabilities: int | None = None
    """Of the packages as installed."""
    deprecation_warnings: int | None = None
    """Distinct ones that the packages gave while the twin's tests ran."""
    code_lines: int | None = None
    """Of the framework's twin, without blank ones, comments and docstrings."""
    cyclomatic_complexity: int | None = None
    """Of the twin's functions, added up."""
    glue_share: float | None = None
    """Lines of the twin that tie training to processes, hosts, storage and an orchestrator."""
    config_fields: int | None = None
    """Of the framework's section of the configuration."""
    manifest_lines: int | None = None
    """Of the framework's compiled DAG and its batch script."""
    not_checked: dict[str, str] = {}
    """Field -> why it is null."""
    commit: str | None = None
    """Git's, with ``-dirty`` after it where files differed from it."""
    details: Ledger | None = None
    """What the figures rest on; null: the run's file is gone."""
    mlflow_run_id: str

    @property
    def figures(self) -> dict[str, float]:
        """The metrics that are known, by their names."""
        known = self.model_dump(exclude_none=True, exclude={"details"})
        return {name: value for name, value in known.items() if isinstance(value, int | float)}


def newest_ledgers(records: Iterable[RunRecord]) -> dict[Framework, RunRecord]:
    """Each framework's newest finished entry; empty without any."""
    newest = {
        run.params.get("framework"): run
        for run in sorted(records, key=lambda run: run.start_time)
        if run.kind == "ledger" and run.status == "FINISHED"
    }
    return {framework: newest[framework] for framework in FRAMEWORKS if framework in newest}


def maintenance_of(
    ledgers: Mapping[Framework, RunRecord],
    read_ledger: Callable[[str], Ledger | None] = lambda run_id: None,
) -> dict[Framework, Maintenance]:
    """What each framework's entry says."""
    return {
        framework: Maintenance(
            **{name: value for name, value in run.metrics.items() if name in _FIGURES},
            not_checked=_reasons(run.tags.get(NOT_CHECKED_TAG, "{}")),
            commit=run.params.get("commit"),
            details=read_ledger(run.run_id),
            mlflow_run_id=run.run_id,
        )
        for framework, run in ledgers.items()
    }


_FIGURES = set(Maintenance.model_fields) - {"not_checked", "commit", "details", "mlflow_run_id"}


def _reasons(text: str) -> dict[str, str]:
    """The tag's content; one that cannot be read is left out, not an error."""
    try:
        return {str(name): str(why) for name, why in json.loads(text).items()}
    except (AttributeError, ValueError):
        return {}
