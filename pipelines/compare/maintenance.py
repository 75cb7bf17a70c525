"""What keeping each side costs, as the newest tracked ledger has it."""

from collections.abc import Iterable, Mapping

from pipelines.compare.part import Part
from pipelines.runs import RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["Maintenance", "maintenance_of", "newest_ledgers"]


class Maintenance(Part):
    """One framework's side of the project; null means not measured."""

    direct_dependencies: int | None = None
    """Packages that the project itself asks for, on this side."""
    total_dependencies: int | None = None
    """With all that these bring in turn."""
    install_bytes: int | None = None
    """Of their files."""
    code_lines: int | None = None
    """Of the framework's twin, without blank ones and comments."""
    cyclomatic_complexity: int | None = None
    """Of the twin's functions, added up."""
    mlflow_run_id: str


def newest_ledgers(records: Iterable[RunRecord]) -> dict[Framework, RunRecord]:
    """Each framework's newest finished entry; empty without any."""
    newest = {
        run.params.get("framework"): run
        for run in sorted(records, key=lambda run: run.start_time)
        if run.kind == "ledger" and run.status == "FINISHED"
    }
    return {framework: newest[framework] for framework in FRAMEWORKS if framework in newest}


def maintenance_of(ledgers: Mapping[Framework, RunRecord]) -> dict[Framework, Maintenance]:
    """What each framework's entry says."""
    return {
        framework: Maintenance(
            **{
                name: round(run.metrics[name])
                for name in Maintenance.model_fields
                if name in run.metrics
            },
            mlflow_run_id=run.run_id,
        )
        for framework, run in ledgers.items()
    }
