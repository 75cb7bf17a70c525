"""Which measured figures speak to which criterion of the scorecard.

A criterion without an indicator is one that nothing here measures: it stays "not measured".
"""

from collections.abc import Sequence

from pipelines.compare.model import Report
from pipelines.compare.readings import Figures, mean_startup
from pipelines.compare.scorecard import Indicator
from pipelines.runs import RunRecord
from pipelines.scorecard_config import Criterion

__all__ = ["indicators_of"]


def indicators_of(report: Report, records: Sequence[RunRecord]) -> dict[Criterion, list[Indicator]]:
    """All of them, measured or not.

    Args:
        report: the report, with its ``overhead`` and ``maintenance``.
        records: the runs behind it, for the repeats of what it has only medians of.
    """
    figures = Figures(report, records)
    return {
        "production_readiness": [
            figures.repeated("goodput, share of the wall clock", "goodput_share", "more"),
            figures.recovery("recovery from a fault", "s", lambda it: it.recovery_seconds),
            figures.recovery("noticing a fault", "s", lambda it: it.notice_seconds),
            figures.recovery("steps lost to a fault", "steps", lambda it: it.lost_steps),
            figures.blessed(),
            figures.dag("DAG once more, all cached", "s", lambda it: it.cached_rerun_seconds),
            figures.ledger("known vulnerabilities of packages", "count", "known_vulnerabilities"),
        ],
        "developer_experience": [
            figures.repeated("time to first step", "time_to_first_step_seconds", "less"),
            figures.ledger("lines of the twin", "lines", "code_lines"),
            figures.ledger("cyclomatic complexity of the twin", "count", "cyclomatic_complexity"),
            figures.ledger("glue, share of the twin", "share", "glue_share"),
        ],
        "deployment_flexibility": [
            figures.ledger(
                "Pythons and glibc ages that its packages resolve for",
                "share",
                "resolvable_share",
                "more",
            ),
            figures.ledger("installed size", "B", "install_bytes"),
            figures.ledger("container image", "B", "image_bytes"),
            figures.strategies(),
        ],
        "performance_and_scalability": [figures.throughput(), figures.efficiency()],
        "ecosystem": [
            figures.ledger("packages that come with it", "count", "total_dependencies"),
            figures.ledger("years behind, all packages together", "years", "libyears_behind"),
            figures.ledger("days without a release, at most", "days", "days_since_release"),
        ],
        "stability": [
            figures.ledger("upper bounds that hold the resolver back", "share", "held_back_share"),
            figures.ledger("deprecation warnings in its tests", "count", "deprecation_warnings"),
            figures.spread(),
            figures.failures(),
        ],
        "time_to_deploy": [
            figures.dag("whole DAG, nothing cached", "s", lambda it: it.seconds),
            figures.dag("start-up of a DAG's component, mean", "s", mean_startup),
            figures.ledger(
                "building the container image", "s", "image_build_seconds", basis="once"
            ),
            figures.ledger("lines of manifest", "lines", "manifest_lines"),
            figures.operation("variables that a worker needs", "count", "environment_variables"),
        ],
    }
