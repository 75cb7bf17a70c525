"""The cells that a report speaks of where it has room for one of each framework."""

from collections.abc import Sequence

from pipelines.compare.model import Cell
from pipelines.strategies import ASYNCHRONOUS_STRATEGIES, FRAMEWORKS, Framework

__all__ = ["told_cells", "told_scaling"]


def told_scaling(cells: Sequence[Cell]) -> str:
    """Weak scaling, unless strong scaling alone was measured."""
    return "weak" if any(cell.scaling == "weak" for cell in cells) else "strong"


def told_cells(cells: Sequence[Cell]) -> dict[Framework, Cell]:
    """Each framework's fastest strategy at the most workers that all frameworks present reached.

    Of one kind of scaling. An asynchronous strategy counts only where its framework has no other.
    """
    kind = told_scaling(cells)
    cells = [cell for cell in cells if cell.scaling == kind]
    cells = [
        cell
        for cell in cells
        if cell.strategy not in ASYNCHRONOUS_STRATEGIES
        or all(o.strategy == cell.strategy for o in cells if o.framework == cell.framework)
    ]
    frameworks = [name for name in FRAMEWORKS if any(cell.framework == name for cell in cells)]
    reached = [{cell.workers for cell in cells if cell.framework == name} for name in frameworks]
    common = set.intersection(*reached) if reached else set()
    if not common:
        return {}
    at_most = [cell for cell in cells if cell.workers == max(common)]
    return {
        name: max((c for c in at_most if c.framework == name), key=lambda cell: cell.median)
        for name in frameworks
    }
