"""The study: every cell of the matrix, measured in fresh processes, one after the other.

What has been measured is in the tracking store, so a study that was cut off goes on with the cells
that have no finished run there.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest

from pipelines import tracking
from pipelines.anatomy import WITHOUT_ANATOMY, measure_anatomy
from pipelines.cell import Cell, cell_config, cell_params
from pipelines.config import Config
from pipelines.errors import DivergedError, InputError, PreemptedError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.ingest.dataset import Dataset
from pipelines.parity.software import code_digest, running_code
from pipelines.preemption import Preemption
from pipelines.recovery_run import WITHOUT_RECOVERY, measure_recovery, recovery_cell
from pipelines.runs import FAULT_TAG, STUDY_TAG, RunRecord, comparable_fields, shown
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.study_folder import StudyFolder
from pipelines.training_run import Listener, begin_run

__all__ = ["StudyListener", "plan", "run_study"]

_ATTEMPTS = 2
"""At a cell, before it counts as failed."""


@dataclass(frozen=True)
class StudyListener(Listener):
    """What is called while a study is under way."""

    on_planned: Callable[[Sequence[Cell], Mapping[Cell, Mapping[str, float]]], None] = (
        lambda cells, measured: None
    )
    """With all cells in their order, and the metrics of those that were measured before."""
    on_measured: Callable[[Cell, Mapping[str, float]], None] = lambda cell, metrics: None
    on_failed: Callable[[Cell], None] = lambda cell: None


def plan(config: Config) -> Iterator[Cell]:
    """The cells in the order in which they run.

    A repeat goes through worker counts and kinds of scaling in an order of its own, by
    ``study.order_seed``. At each of them the frameworks alternate, and from repeat to repeat the
    order there is turned round, so that a machine that warms up or slows down meanwhile does so to
    both alike.
    """
    shuffle = random.Random(config.study.order_seed).shuffle
    strategies = [
        [(framework, strategy) for strategy in config.strategies(framework)]
        for framework in FRAMEWORKS
    ]
    turns = [each for pair in zip_longest(*strategies) for each in pair if each is not None]
    places = list(enumerate(product(config.study.scaling, config.study.workers)))
    for repeat in range(config.study.repeats):
        shuffle(places)
        for number, (scaling, workers) in places:
            # By place too, so that nobody goes first at all worker counts of a repeat.
            order = turns if (repeat + number) % 2 == 0 else turns[::-1]
            for framework, strategy in order:
                yield Cell(framework, strategy, workers, scaling, repeat)


def run_study(
    config: Config, dataset: Dataset, study_id: str, listener: StudyListener
) -> list[str]:
    """Measure every cell that has not been measured; returns the ids of all cells' runs.

    Then each kind of cell is taken apart, if ``study.anatomy`` asks for it, and a worker of each
    framework is killed, if ``study.recovery`` does. A cell that fails is tried once more. If it
    fails again, its further repeats are left out and the others are measured; what was measured
    stays in any case.

    Raises:
        WorkError: if cells were given up, or the study was asked to end.
        InputError: if the study was begun with other data, code or hardware, or another process is
            measuring it.
    """
    with held_alone(StudyFolder.path(config, study_id), "begin another study"):
        return _Study(config, dataset, study_id, listener).finish()


class _Study:
    def __init__(
        self, config: Config, dataset: Dataset, study_id: str, listener: StudyListener
    ) -> None:
        self._config = config
        self._dataset = dataset
        self._study_id = study_id
        self._listener = listener
        self._cells = list(plan(config))
        self._run_ids: dict[Cell, str] = {}
        self._taken_apart: set[str] = set()
        self._recovered: set[Cell] = set()
        self._failures: dict[str, str] = {}
        """Why, by the title of a cell that was given up."""
        tracking.prepare_store(config)
        self._folder, begun = StudyFolder.begin(config, study_id)
        self._take_up(tracking.read_runs(config) if begun else [])

    def finish(self) -> list[str]:
        """Measure what is left of it."""
        with Preemption().watched() as preemption:
            for cell in self._cells:
                if cell in self._run_ids or cell.title in self._failures:
                    continue
                self._require_ready(cell.name, preemption)
                self._measure(cell, preemption)
            if self._config.study.anatomy:
                for cell in self._to_take_apart():
                    self._take_apart(cell, preemption)
            if self._config.study.recovery:
                for framework in FRAMEWORKS:
                    self._recover(framework, preemption)
        if self._failures:
            said = "; ".join(f"{title}: {why}" for title, why in self._failures.items())
            raise WorkError(f"cells failed: {said}; {self._how_to_go_on}")
        return [self._run_ids[cell] for cell in self._cells]

    @property
    def _how_to_go_on(self) -> str:
        return f"go on with `tandem study --resume {self._folder}`"

    def _take_up(self, records: Sequence[RunRecord]) -> None:
        """Find what has been measured before; another's finished cells are no part of it."""
        measured: dict[Cell, RunRecord] = {}
        for run in records:
            ended = run.tags.get(STUDY_TAG) == self._study_id and run.status == "FINISHED"
            cell = Cell.of_params(run.params)
            if ended and run.kind == "anatomy" and cell is not None:
                self._taken_apart.add(cell.title)
            if ended and run.kind == "recovery" and cell is not None and FAULT_TAG in run.tags:
                self._recovered.add(cell)
            if ended and run.kind == "cell" and cell in self._cells and not run.interruption:
                self._refuse_change(cell, run)
                measured[cell] = run
        self._run_ids = {cell: run.run_id for cell, run in measured.items()}
        self._listener.on_planned(
            self._cells, {cell: run.metrics for cell, run in measured.items()}
        )

    def _refuse_change(self, cell: Cell, run: RunRecord) -> None:
        now = cell_params(cell_config(self._config, cell), self._dataset.manifest, cell)
        for field in comparable_fields(cell.scaling):
            was = run.params.get(field, "not recorded")
            if field in now and was != str(now[field]):
                raise InputError(
                    f"--resume {self._folder}: {field} is {shown(str(now[field]))} now, and was "
                    f"{shown(was)} in {run.name}; begin another study"
                )

    def _measure(self, cell: Cell, preemption: Preemption) -> None:
        def train() -> None:
            run_id, metrics = begin_run(
                cell_config(self._config, cell),
                self._dataset,
                cell,
                "cell",
                self._study_id,
                self._folder,
                self._listener,
            )
            self._run_ids[cell] = run_id
            self._listener.on_measured(cell, metrics)

        if not self._try(train, cell.name, cell.title, preemption):
            self._listener.on_failed(cell)

    def _to_take_apart(self) -> list[Cell]:
        """The first of each kind that was measured, but of those that were taken apart before."""
        kinds: dict[str, Cell] = {}
        for cell in self._cells:
            if cell in self._run_ids and cell.strategy not in WITHOUT_ANATOMY:
                kinds.setdefault(cell.title, replace(cell, repeat=0))
        return [cell for title, cell in kinds.items() if title not in self._taken_apart]

    def _take_apart(self, cell: Cell, preemption: Preemption) -> None:
        def measure() -> None:
            own = cell_config(self._config, cell)
            measure_anatomy(own, self._dataset, cell, self._study_id, self._folder, self._listener)

        self._try_beside(measure, f"{cell.title} anatomy", preemption)

    def _recover(self, framework: Framework, preemption: Preemption) -> None:
        """Unless nothing like it was measured, or it has been done before."""
        cell = recovery_cell(self._config, framework)
        if cell in self._recovered or cell.title not in {each.title for each in self._run_ids}:
            return
        if cell.strategy in WITHOUT_RECOVERY:
            self._listener.on_note(f"no recovery is measured of {cell.title}")
            return

        def measure() -> None:
            measure_recovery(
                self._config,
                self._dataset,
                framework,
                self._study_id,
                self._folder,
                self._listener,
            )

        self._try_beside(measure, f"{cell.title} recovery", preemption)

    def _require_ready(self, name: str, preemption: Preemption) -> None:
        if preemption.asked:
            raise WorkError(f"asked to end before {name}; {self._how_to_go_on}")
        if code_digest() != running_code():
            raise WorkError(
                f"the source code was changed before {name}, which would measure another program; "
                f"put it back and {self._how_to_go_on}, or begin another study"
            )

    def _try_beside(self, work: Callable[[], None], name: str, preemption: Preemption) -> None:
        """What is done once, beside the cells."""
        self._require_ready(name, preemption)
        self._try(work, name, name, preemption)

    def _try(self, work: Callable[[], None], name: str, kind: str, preemption: Preemption) -> bool:
        """Whether it could be done at last; if not, its kind is given up."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                work()
            except PreemptedError:
                raise WorkError(f"asked to end in {name}; {self._how_to_go_on}") from None
            except WorkError as error:
                if preemption.asked:
                    raise
                if attempt < _ATTEMPTS and not isinstance(error, DivergedError):
                    self._listener.on_note(f"{name} failed, and is tried once more: {error}")
                    continue
                self._failures[kind] = str(error)
                self._listener.on_note(f"{name} is given up: {error}")
                return False
            return True
        return False
