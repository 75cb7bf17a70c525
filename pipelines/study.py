"""The study: every cell of the matrix, measured in fresh processes, one after the other."""

from collections.abc import Iterator

from pipelines import tracking
from pipelines.cell import Cell
from pipelines.config import Config
from pipelines.errors import PreemptedError, WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.preemption import Preemption
from pipelines.strategies import FRAMEWORKS
from pipelines.training_run import Listener, begin_run

__all__ = ["plan", "run_study"]


def plan(config: Config) -> Iterator[Cell]:
    """The cells in the order in which they run.

    The frameworks alternate, and who goes first alternates too, so that a machine that warms up
    or slows down meanwhile does so to both alike.
    """
    for repeat in range(config.study.repeats):
        for scaling in config.study.scaling:
            for place, workers in enumerate(config.study.workers):
                # By place too, so that nobody always goes first at a given worker count.
                order = FRAMEWORKS if (repeat + place) % 2 == 0 else FRAMEWORKS[::-1]
                for framework in order:
                    yield Cell(framework, config.strategy(framework), workers, scaling, repeat)


def run_study(config: Config, dataset: Dataset, study_id: str, listener: Listener) -> list[str]:
    """Measure every cell; returns the ids of their runs.

    Raises:
        WorkError: if a cell failed; its run is marked so, and what was measured stays.
    """
    tracking.prepare_store(config)
    folder = config.output / "studies" / study_id
    run_ids: list[str] = []
    with Preemption().watched() as preemption:
        for cell in plan(config):
            try:
                run_id, _ = begin_run(config, dataset, cell, "cell", study_id, folder, listener)
            except PreemptedError as asked:
                raise WorkError(f"{cell.name} was {asked}; the study ends with it") from None
            run_ids.append(run_id)
            if preemption.asked:
                raise WorkError(f"asked to end: the study ends with {cell.name}")
    return run_ids
