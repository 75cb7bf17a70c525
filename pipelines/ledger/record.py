"""The ledger in the tracking store: a run per framework and commit."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import ValidationError

from pipelines import tracking
from pipelines.config import Config
from pipelines.ledger.commit import Commit, commit_of
from pipelines.ledger.measure import NETWORKED, measure_here, with_network, without_network
from pipelines.ledger.model import LEDGER_NAME, Ledger
from pipelines.ledger.packages import Packages, packages_of
from pipelines.parity.software import code_digest
from pipelines.runs import NOT_CHECKED_TAG, RunRecord
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework

__all__ = ["Network", "keep_ledger", "read_ledger"]

Network = Literal["ask", "kept"]
"""Where the entries come from that the network is needed for: it is asked; or they are what was
found before for the same packages, which costs no time."""
NEVER_ASKED = "needs the network, which `tandem ledger` asks"
_CARRIED = (
    "networked",
    "bounds",
    "built_from_source",
    "resolutions",
    "ages",
    "unknown_packages",
    "vulnerabilities",
    "audited",
    "not_audited",
)
"""The details that the network was needed for."""


def keep_ledger(
    config: Config,
    study_id: str,
    network: Network = "ask",
    on_progress: Callable[[str], None] = lambda detail: None,
) -> dict[Framework, Ledger]:
    """Measure both sides, and track what is not yet tracked; returns the entries.

    Raises:
        InputError: if a side's environment is missing, or ``out/images.json`` cannot be read.
    """
    tracking.prepare_store(config)
    known = [run for run in tracking.read_runs(config) if _is_ledger(run)]
    commit, code_sha256 = commit_of(), code_digest()
    when = {} if commit is None else _of_commit(commit)
    on_progress("counting packages and lines, compiling both DAGs")

    def begin(framework: Framework) -> tuple[Ledger, Packages, dict[str, str]]:
        packages = packages_of(framework)
        params = {
            "study": config.name,
            "framework": framework,
            "code_sha256": code_sha256,
            "packages_sha256": _digest(packages),
            **when,
        }
        before = _newest(config, known, params, "framework", "code_sha256", "packages_sha256")
        ledger = measure_here(framework, packages, before.dag_lines if before else None)
        return ledger, packages, params

    with ThreadPoolExecutor() as pool:  # each waits for a process of its own
        begun = dict(zip(FRAMEWORKS, pool.map(begin, FRAMEWORKS), strict=True))
    ledgers = {}
    for framework, (here, packages, params) in begun.items():
        if network == "ask":
            ledger = with_network(here, packages, _about(framework, on_progress))
        else:
            asked = [run for run in known if any(name in run.metrics for name in NETWORKED)]
            before = _newest(config, asked, params, "framework", "packages_sha256")
            ledger = _carried(here, before) if before else without_network(here, NEVER_ASKED)
        ledger = ledger.model_copy(update=when)
        # Against the newest alone: what an older one holds is not what the report would show.
        newest = next((run for run in reversed(known) if _is_of(run, framework)), None)
        if newest and _holds(newest, params, ledger):
            run_id = newest.run_id
        else:
            run_id = _track(config, ledger, study_id, params, commit)
        ledgers[framework] = ledger.model_copy(update={"mlflow_run_id": run_id})
    return ledgers


def read_ledger(config: Config, run_id: str) -> Ledger | None:
    """The whole of a tracked ledger; None if its file is gone, or of a version long past."""
    text = tracking.read_file(config, run_id, LEDGER_NAME)
    try:
        return None if text is None else Ledger.model_validate_json(text)
    except ValidationError:
        return None


def _track(
    config: Config, ledger: Ledger, study_id: str, params: dict[str, str], commit: Commit | None
) -> str:
    name = f"{ledger.framework} ledger"
    run_id = tracking.create_run(config, name, "ledger", study_id, params)
    with tracking.ended_if_failed(config, run_id), TemporaryDirectory() as folder:
        file = Path(folder) / LEDGER_NAME
        file.write_text(ledger.model_dump_json(indent=2) + "\n")
        tracking.log_files(config, run_id, [file])
        # By the commit's place in history, so that a chart over runs is the trend over commits.
        tracking.log_metrics(
            config,
            run_id,
            ledger.metrics,
            {NOT_CHECKED_TAG: json.dumps(ledger.not_checked)},
            step=commit.number if commit else 0,
            seconds=commit.time.timestamp() if commit else None,
        )
    tracking.finish_run(config, run_id, "FINISHED")
    return run_id


def _is_ledger(run: RunRecord) -> bool:
    return run.kind == "ledger" and run.status == "FINISHED"


def _is_of(run: RunRecord, framework: Framework) -> bool:
    return run.params.get("framework") == framework


def _about(framework: Framework, on_progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda detail: on_progress(f"{FRAMEWORK_TITLES[framework]}: {detail}")


def _of_commit(commit: Commit) -> dict[str, str]:
    return {
        "commit": commit.revision,
        "commit_time": commit.time.isoformat(timespec="seconds"),
    }


def _newest(
    config: Config, known: Sequence[RunRecord], params: dict[str, str], *names: str
) -> Ledger | None:
    """The newest ledger that agrees in the named parameters, if its file is still there."""
    for run in reversed(known):
        if all(run.params.get(name) == params[name] for name in names):
            return read_ledger(config, run.run_id)
    return None


def _carried(ledger: Ledger, before: Ledger) -> Ledger:
    """The ledger with an earlier one's entries from the network, and when they were asked for."""
    metrics, reasons = (
        {name: found[name] for name in NETWORKED if name in found}
        for found in (before.metrics, before.not_checked)
    )
    return ledger.model_copy(
        update={
            "metrics": {**ledger.metrics, **metrics},
            "not_checked": {**ledger.not_checked, **reasons},
            **{name: getattr(before, name) for name in _CARRIED},
        }
    )


def _holds(run: RunRecord, params: dict[str, str], ledger: Ledger) -> bool:
    """Whether a run tracks this very ledger already."""
    return (
        run.params == params
        and run.metrics == ledger.metrics
        and run.tags.get(NOT_CHECKED_TAG) == json.dumps(ledger.not_checked)
    )


def _digest(packages: Packages) -> str:
    """SHA-256 of all that decides what the network is asked."""
    asked = [packages.asked, sorted(packages.versions.items())]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
