"""The size of a package's own code, as lizard counts it."""

from dataclasses import dataclass
from pathlib import Path

import lizard

__all__ = ["Code", "code_of"]


@dataclass(frozen=True)
class Code:
    """All Python files of a package."""

    lines: int
    """Without blank ones and comments."""
    cyclomatic_complexity: int
    """McCabe's number of all functions, added up: one each, and one for each of its branches."""


def code_of(package: Path) -> Code:
    """Count a package's code, in the files below its folder."""
    files = [str(file) for file in sorted(package.rglob("*.py"))]
    counted = list(lizard.analyze_files(files))
    return Code(
        lines=sum(file.nloc for file in counted),
        cyclomatic_complexity=sum(file.CCN for file in counted),
    )
