"""What keeping each side costs now, against what it did at another commit.

What git alone can tell is counted there afresh, without installing anything: code, fields of the
configuration, requirements, locks. The rest is known if that commit's ledger was tracked.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipelines.environments import PROJECT_ROOT
from pipelines.ledger.code import code_of, glue_share, total_of
from pipelines.ledger.commit import checked_out, find_commit
from pipelines.ledger.model import Ledger
from pipelines.ledger.packages import EXTRAS
from pipelines.metrics import METRICS
from pipelines.runs import RunRecord
from pipelines.strategies import FRAMEWORKS, Framework

__all__ = ["Difference", "FileChange", "SideDifference", "difference_to"]

_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
_COUNT_FIELDS = """
import json
from pydantic import BaseModel
from pipelines.config import Config
def leaves(kind):
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return 1
    return sum(leaves(field.annotation) for field in kind.model_fields.values())
print(json.dumps({name: leaves(Config.model_fields[name].annotation) for name in ("tf", "torch")}))
"""
Change = tuple[float | None, float | None]
"""Then and now; null: not known."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FileChange(_Part):
    """One file of the twin that has become larger, smaller, or another."""

    file: str
    lines: tuple[int | None, int | None]
    """Then and now; null: not there."""
    cyclomatic_complexity: tuple[int | None, int | None]


class SideDifference(_Part):
    """One framework's side, then and now."""

    metrics: dict[str, Change]
    """By the names of the metrics table: what is known of either."""
    files: list[FileChange]
    """Those of the twin that differ in size."""
    packages: dict[str, tuple[str | None, str | None]]
    """Package -> version in the lock, of those that differ; null: not in it."""
    requirements: dict[str, tuple[str | None, str | None]]
    """Package -> what the project asks of it on this side, of those that differ."""
    mlflow_run_id: str | None
    """The tracked ledger of that commit; null: there is none."""


class Difference(_Part):
    """Both sides, then and now."""

    revision: str
    """As it was asked for."""
    commit: str
    commit_time: str
    """ISO 8601, UTC."""
    sides: dict[Framework, SideDifference]


def difference_to(
    revision: str,
    ledgers: Mapping[Framework, Ledger],
    records: Sequence[RunRecord],
    root: Path = PROJECT_ROOT,
) -> Difference:
    """How the present ledgers differ from what they were at a revision of git's.

    ``records`` are the study's runs, among which that commit's ledger may be.

    Raises:
        InputError: if this is no checkout, or git has no such revision.
    """
    commit = find_commit(revision, root)
    with checked_out(commit, root) as then:
        fields = _config_fields(then)
        sides = {
            framework: _side(
                framework, ledgers[framework], then, root, fields.get(framework),
                _tracked(records, framework, commit.revision),
            )
            for framework in FRAMEWORKS
        }  # fmt: skip
    return Difference(
        revision=revision,
        commit=commit.revision,
        commit_time=commit.time.isoformat(timespec="seconds"),
        sides=sides,
    )


def _side(
    framework: Framework,
    ledger: Ledger,
    then: Path,
    now: Path,
    fields: int | None,
    tracked: RunRecord | None,
) -> SideDifference:
    old, new = (code_of(root / f"{framework}_pipeline") for root in (then, now))
    metrics: dict[str, float] = dict(tracked.metrics) if tracked else {}
    if old:
        code = total_of(old)
        metrics |= {
            "code_lines": code.lines,
            "cyclomatic_complexity": code.cyclomatic_complexity,
            "glue_share": glue_share(old),
        }
    if fields is not None:
        metrics["config_fields"] = fields
    files = [
        FileChange(
            file=path,
            lines=(before and before.lines, after and after.lines),
            cyclomatic_complexity=(
                before and before.cyclomatic_complexity,
                after and after.cyclomatic_complexity,
            ),
        )
        for path in sorted({*old, *new})
        if (before := old.get(path)) != (after := new.get(path))
    ]
    return SideDifference(
        metrics={
            name: (metrics.get(name), ledger.metrics.get(name))
            for name in METRICS
            if name in metrics or name in ledger.metrics
        },
        files=files,
        packages=_changed(_locked(then, framework), _locked(now, framework)),
        requirements=_changed(_required(then, framework), _required(now, framework)),
        mlflow_run_id=tracked.run_id if tracked else None,
    )


def _tracked(records: Sequence[RunRecord], framework: Framework, revision: str) -> RunRecord | None:
    """The newest ledger of that very commit, with no file changed beside it."""
    found = [
        run
        for run in records
        if run.kind == "ledger"
        and run.status == "FINISHED"
        and run.params.get("framework") == framework
        and run.params.get("commit") == revision
    ]
    return max(found, key=lambda run: run.start_time, default=None)


def _config_fields(root: Path) -> dict[str, int]:
    """Each side's fields, as the configuration under ``root`` has them; empty if it cannot say."""
    if not (root / "pipelines" / "config.py").exists():  # another installed one would answer
        return {}
    said = subprocess.run(
        [sys.executable, "-c", _COUNT_FIELDS],
        cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    counted: dict[str, int] = json.loads(said.stdout) if said.returncode == 0 else {}
    return counted


def _locked(root: Path, framework: Framework) -> dict[str, str]:
    lock = root / "infra" / "requirements" / f"{framework}.txt"
    return dict(_PIN.findall(lock.read_text())) if lock.exists() else {}


def _required(root: Path, framework: Framework) -> dict[str, str]:
    """Package -> requirement, of the side's extras."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    except (OSError, KeyError):
        return {}
    extras = project.get("optional-dependencies", {})
    lines = [line for extra in EXTRAS[framework] for line in extras.get(extra, ())]
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0]: line for line in lines}


def _changed(
    old: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    return {
        name: (old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    }
