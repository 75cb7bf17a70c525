"""One training run: begun, started again if a worker dies, gone on with after it has ended."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.cell import Cell, cell_params, run_identity
from pipelines.checkpoints import CHECKPOINTS_FOLDER, Checkpoints
from pipelines.cluster import Layout
from pipelines.cluster_config import ClusterConfig
from pipelines.config import Config
from pipelines.errors import DivergedError, InputError, PreemptedError, WorkError
from pipelines.folder_lock import held_alone
from pipelines.goodput import RunLedger
from pipelines.ingest.dataset import Dataset
from pipelines.launch import OnLine, launch
from pipelines.operation import survey
from pipelines.preemption import Preemption
from pipelines.run_folder import CONFIG_NAME, RESULT_NAME, RunFolder, fresh_folder
from pipelines.runs import ATTEMPT_TAG, PREEMPTED_TAG, RunKind
from pipelines.study_folder import StudyFolder
from pipelines.transformed import transformed_examples

__all__ = ["Listener", "begin_run", "refuse_unreachable_store", "resume_run", "train_arguments"]

_INSTEAD = "begin another run"


@dataclass(frozen=True)
class Listener:
    """What is called while a run is under way."""

    on_progress: Callable[[Cell, int, int], None] = lambda cell, step, steps: None
    """With the cell that runs, and steps done and in all."""
    on_line: OnLine = lambda name, line: None
    on_note: Callable[[str], None] = lambda text: None
    """With what a user should know of: a failure that was overcome, a damaged checkpoint."""


def begin_run(
    config: Config,
    dataset: Dataset,
    cell: Cell,
    kind: RunKind,
    study_id: str,
    folder: Path,
    listener: Listener,
    max_restarts: int = 0,
) -> tuple[str, dict[str, float]]:
    """Train a cell in processes of its own; returns its run's id and metrics.

    Its folder is the cell's in ``folder``; where an earlier attempt at the cell has left one, one
    beside it.

    If a worker dies, all are started again, up to ``max_restarts`` times, and go on from the newest
    checkpoint.

    Raises:
        PreemptedError: if the run was asked to end, and has saved where it is.
        DivergedError: if its loss is no longer finite.
        WorkError: if a worker failed, with its last lines.
    """
    refuse_unreachable_store(config)
    transformed = transformed_examples(config, dataset, cell.framework)
    output, attempt = fresh_folder(folder, cell.slug)
    params = cell_params(config, dataset.manifest, cell)
    if ClusterConfig.of_this_step() is not None:
        del params["hardware"]  # the workers', which rank 0 knows
    tags = {ATTEMPT_TAG: str(attempt)} if attempt > 1 else {}
    name = f"{cell.title} recovery" if kind == "recovery" else cell.name
    run_id = tracking.create_run(config, name, kind, study_id, params, more_tags=tags)
    held = RunFolder.of(run_id, cell, study_id, config.given_tracking_uri)
    run = _Run(config, held, output, transformed, listener)
    return run_id, run.finish(max_restarts)


def resume_run(
    config: Config,
    dataset: Dataset,
    folder: Path,
    workers: int,
    listener: Listener,
    max_restarts: int = 0,
) -> tuple[str, dict[str, float]]:
    """Go on with a folder's run on ``workers`` replicas; else the same as ``begin_run``.

    Raises:
        InputError: if the folder has no run that could go on, or it still goes on elsewhere.
    """
    refuse_unreachable_store(config)
    held = RunFolder.to_resume(folder).model_copy(update={"workers": workers})
    tracking.require_run(config, held.run_id)
    with held_alone(folder / CHECKPOINTS_FOLDER, _INSTEAD):
        pass  # rank 0 holds it, and may outlive its launcher
    store = Checkpoints(folder / CHECKPOINTS_FOLDER, config.checkpoint.keep)
    store.require_same_run(run_identity(config, dataset.manifest, held.cell))
    transformed = transformed_examples(config, dataset, held.framework)
    run = _Run(config, held, folder, transformed, listener)
    return held.run_id, run.finish(max_restarts)


def refuse_unreachable_store(config: Config) -> None:
    """Refuse a tracking store that workers on emulated hosts could not write to.

    Raises:
        InputError: if there are such hosts, and the store is not a file.
    """
    if config.network.hosts > 1 and not config.tracking_uri.startswith("sqlite:"):
        raise InputError(
            f"tracking.uri: emulated hosts cannot reach {config.shown_tracking_uri}; "
            "use a database file, such as sqlite:///out/mlflow.db"
        )


def train_arguments(
    cell: Cell, config: Path, output: Path, study_id: str, transformed: Path | None = None
) -> list[str]:
    """The ``train`` stage of one cell, as every launcher starts it."""
    arguments = ["train", "--config", str(config), "--output", str(output)]
    arguments += ["--scaling", cell.scaling, "--repeat", str(cell.repeat), "--study-id", study_id]
    return arguments + (["--transformed", str(transformed)] if transformed else [])


class _Run:
    """The attempts at a run, of which the last is the one that ends well."""

    def __init__(
        self,
        config: Config,
        held: RunFolder,
        output: Path,
        transformed: Path | None,
        listener: Listener,
    ) -> None:
        self._config = config
        self._held = held
        self._output = output
        self._transformed = transformed
        self._listener = listener
        self._preempted: int | None = None
        self._diverged = ""
        self._recovery = _Recovery()
        self._ledger = RunLedger()
        self._operation: dict[str, float] = {}
        self._pids: list[int] = []
        self._variables: Collection[str] = ()
        """That the launcher sets for rank 0."""

    def finish(self, max_restarts: int) -> dict[str, float]:
        """Attempt it until it ends well, is asked to end, or has failed once too often."""
        with held_alone(self._output, _INSTEAD):
            return self._finish(max_restarts)

    def _finish(self, max_restarts: int) -> dict[str, float]:
        config, run_id = self._config, self._held.run_id
        with tracking.ended_if_failed(config, run_id), Preemption().watched() as preemption:
            self._held.write(self._output)
            config.dump(self._output / CONFIG_NAME)
            try:
                taken = self._attempts(max_restarts, preemption)
            except PreemptedError as early:
                tracking.log_metrics(config, run_id, {}, {PREEMPTED_TAG: "0"})
                raise PreemptedError(f"{early}; {self._how_to_go_on}") from None
            if (self._output / RESULT_NAME).exists():
                self._preempted = None  # in the meantime it went on, and has ended well
            elif self._preempted is None:
                raise WorkError(f"{self._held.cell.name} ended without a result ({self._output})")
        if self._preempted is not None:
            tracking.finish_run(config, run_id, "KILLED")  # as rank 0 has, if it could
            raise PreemptedError(
                f"asked to end, and saved after step {self._preempted}; {self._how_to_go_on}"
            )
        tracking.log_metrics(config, run_id, taken)
        tracking.finish_run(config, run_id, "FINISHED")  # as rank 0 has, if it could
        metrics = json.loads((self._output / RESULT_NAME).read_text())["metrics"]
        return {**metrics, **taken}

    @property
    def _how_to_go_on(self) -> str:
        if (study := StudyFolder.around(self._output)) is not None:
            return f"go on with `tandem study --resume {study}`"
        return f"go on with `tandem train {self._held.framework} --resume {self._output}`"

    def _attempts(self, max_restarts: int, preemption: Preemption) -> dict[str, float]:
        """What they took together."""
        seconds, restarts = 0.0, 0
        while True:
            self._ledger.begin()
            try:
                took = self._attempt(preemption)
                self._ledger.end(took)
                seconds += took
                break
            except WorkError as error:
                seconds += self._ledger.fail()
                if self._diverged:
                    raise DivergedError(f"{self._diverged} (in {self._output})") from None
                if restarts == max_restarts or preemption.asked:
                    raise
                restarts += 1
                self._recovery.begin()
                self._listener.on_note(
                    f"{error}; starting all workers again ({restarts} of {max_restarts})"
                )
        taken = {"wall_seconds": seconds, **self._operation, **self._ledger.metrics(seconds)}
        if restarts:
            taken |= {"restarts": float(restarts), **self._recovery.metrics}
        return taken

    def _attempt(self, preemption: Preemption) -> float:
        held, self._preempted, self._pids = self._held, None, []
        self._listener.on_progress(held.cell, 0, self._config.training.steps)
        if preemption.asked:
            raise PreemptedError("asked to end before its workers were started")
        return launch(
            held.framework,
            train_arguments(
                held.cell,
                self._output / CONFIG_NAME,
                self._output,
                held.study_id,
                self._transformed,
            ),
            logs=self._new_logs(),
            layout=Layout.of(self._config, held.framework, held.workers),
            network=self._config.network,
            threads_per_worker=self._config.study.threads_per_worker,
            environment={
                tracking.RUN_ID_VARIABLE: held.run_id,
                **self._config.child_variables,
            },
            on_event=self._on_event,
            on_line=self._listener.on_line,
            on_start=self._on_start,
            preemption=preemption,
        )

    def _new_logs(self) -> Path:
        """The run's own folder at first, then one for each further attempt."""
        earlier = len([*self._output.glob("attempt*")])
        if not earlier and not [*self._output.glob("*.log")]:
            return self._output
        return self._output / f"attempt{earlier + 2}"

    def _on_start(self, pid: int, variables: Collection[str]) -> None:
        if not self._pids:
            self._ledger.started()
            self._variables = variables
        self._pids.append(pid)

    def _on_event(self, rank: int, event: dict[str, Any]) -> None:
        if rank != 0:
            return
        self._ledger.heard(event)
        if event["event"] in ("resumed", "step"):
            self._preempted = None  # in the meantime it went on
        match event["event"]:
            case "step":
                if not self._operation:  # the first step, so the warm-up is not over
                    self._operation = survey(self._pids, self._variables)
                self._recovery.step(event["step"])
                self._listener.on_progress(self._held.cell, event["step"], event["steps"])
            case "resumed":
                self._recovery.resumed_from = event["step"]
            case "note":
                self._listener.on_note(event["text"])
            case "preempted":
                self._preempted = event["step"]
            case "diverged":
                self._diverged = event["message"]


class _Recovery:
    """How long it took to get over failures, and what was lost by them."""

    def __init__(self) -> None:
        self.metrics = {"lost_steps": 0.0, "recovery_seconds": 0.0}
        self.resumed_from = 0
        self._done = 0
        self._failed_at: float | None = None

    def begin(self) -> None:
        """A failure has been noticed."""
        self.resumed_from = 0
        if self._failed_at is None:  # else it comes before the last one was got over
            self._failed_at = time.perf_counter()

    def step(self, done: int) -> None:
        """Rank 0 says how many steps are done."""
        if self._failed_at is not None:
            self.metrics["recovery_seconds"] += time.perf_counter() - self._failed_at
            self.metrics["lost_steps"] += max(self._done - self.resumed_from, 0)
            self._failed_at = None
        self._done = done
