"""The ledger in the tracking store: a run per framework and state of the code."""

from pipelines import tracking
from pipelines.config import Config
from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.code import code_of
from pipelines.ledger.packages import packages_of
from pipelines.parity.software import code_digest
from pipelines.runs import RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["keep_ledger", "measure"]


def measure(framework: Framework) -> dict[str, float]:
    """One side's entries, by the names of the metrics table.

    Raises:
        InputError: if the side's environment is missing.
    """
    packages, code = packages_of(framework), code_of(PROJECT_ROOT / f"{framework}_pipeline")
    return {
        "direct_dependencies": float(len(packages.direct)),
        "total_dependencies": float(len(packages.total)),
        "install_bytes": float(packages.install_bytes),
        "code_lines": float(code.lines),
        "cyclomatic_complexity": float(code.cyclomatic_complexity),
    }


def keep_ledger(config: Config, study_id: str) -> dict[Framework, dict[str, float]]:
    """Measure both sides, and track what is not yet tracked; returns the entries."""
    tracking.prepare_store(config)
    known = [run for run in tracking.read_runs(config) if run.kind == "ledger"]
    entries = {framework: measure(framework) for framework in FRAMEWORKS}
    code_sha256 = code_digest()
    for framework, metrics in entries.items():
        params = {"study": config.name, "framework": framework, "code_sha256": code_sha256}
        if any(_holds(run, params, metrics) for run in known):
            continue
        run_id = tracking.create_run(config, f"{framework} ledger", "ledger", study_id, params)
        with tracking.ended_if_failed(config, run_id):
            tracking.log_metrics(config, run_id, metrics)
        tracking.finish_run(config, run_id, "FINISHED")
    return entries


def _holds(run: RunRecord, params: dict[str, str], metrics: dict[str, float]) -> bool:
    return run.status == "FINISHED" and run.params == params and run.metrics == metrics
