"""The size of a twin's own code, file by file, as lizard counts it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lizard

__all__ = ["GLUE", "Code", "code_of", "glue_share", "total_of"]

GLUE = frozenset(
    {"__init__", "__main__", "checkpoint", "pipeline", "runners", "sharding", "strategy"}
)
"""Files of a twin that tie training to processes, hosts, storage and an orchestrator. The others
hold what is computed: data, model, step, evaluation, export, and what measures them."""


@dataclass(frozen=True)
class Code:
    """Of a file, or of several."""

    lines: int
    """Without blank ones, comments and docstrings."""
    cyclomatic_complexity: int
    """McCabe's number of all functions, added up: one each, and one for each of its branches."""


def code_of(package: Path) -> dict[str, Code]:
    """Count the Python files below a package's folder: path from there -> its code, by path."""
    paths = sorted(package.rglob("*.py"))
    counted = map(lizard.analyze_file, map(str, paths))
    return {
        path.relative_to(package).as_posix(): Code(file.nloc, file.CCN)
        for path, file in zip(paths, counted, strict=True)
    }


def total_of(files: Mapping[str, Code]) -> Code:
    """All files together."""
    return Code(
        lines=sum(file.lines for file in files.values()),
        cyclomatic_complexity=sum(file.cyclomatic_complexity for file in files.values()),
    )


def glue_share(files: Mapping[str, Code]) -> float:
    """The share of the lines that stands in files of ``GLUE``; workloads have none."""
    glue = {path: file for path, file in files.items() if path.removesuffix(".py") in GLUE}
    lines = total_of(files).lines
    return total_of(glue).lines / lines if lines else 0.0
