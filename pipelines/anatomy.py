"""Measuring what a cell's step consists of, beside the run that trains the cell."""

import json
from pathlib import Path
from typing import Any

from pipelines import tracking
from pipelines.anatomy_run import ALL_REDUCE_NAME, Variant
from pipelines.cell import Cell, cell_params
from pipelines.cluster import Layout
from pipelines.collectives import Sample, fit_link
from pipelines.config import Config
from pipelines.errors import InputError, PreemptedError, WorkError
from pipelines.ingest.dataset import Dataset
from pipelines.launch import launch
from pipelines.preemption import Preemption
from pipelines.run_folder import CONFIG_NAME, RESULT_NAME, fresh_folder
from pipelines.runs import ALL_REDUCE_TAG
from pipelines.strategies import WITHOUT_ALL_REDUCE
from pipelines.training_run import Listener, refuse_unreachable_store
from pipelines.transformed import transformed_examples

__all__ = ["WITHOUT_ANATOMY", "measure_anatomy"]

WITHOUT_ANATOMY = frozenset({"tpu"})
"""Strategies in which no process can have a device for itself."""


def measure_anatomy(
    config: Config,
    dataset: Dataset,
    cell: Cell,
    study_id: str,
    folder: Path,
    listener: Listener,
) -> str:
    """Time a cell's step without collectives, and collectives without a step.

    Returns the id of its run, of kind ``anatomy``. Every replica is a process with the threads and
    cores of a worker, whatever the strategy.

    Raises:
        InputError: if the strategy is ``tpu``, of whose cores no process can have one for itself.
        PreemptedError: if it was asked to end.
        WorkError: if a worker failed, with its last lines.
    """
    if cell.strategy in WITHOUT_ANATOMY:
        raise InputError(
            "tf.strategy: what a step under tpu consists of cannot be measured, since one process "
            "has all of its cores; use another strategy, or no anatomy"
        )
    refuse_unreachable_store(config)
    transformed = transformed_examples(config, dataset, cell.framework)
    name = f"{cell.title} anatomy"
    output, _ = fresh_folder(folder, f"{cell.kind_slug}-anatomy")
    resolved = config.dump(output / CONFIG_NAME)
    params = cell_params(config, dataset.manifest, cell)
    run_id = tracking.create_run(config, name, "anatomy", study_id, params)

    def on_event(rank: int, event: dict[str, Any]) -> None:
        if rank == 0 and event["event"] == "step":
            listener.on_progress(cell, event["step"], event["steps"])

    def run(variant: Variant, result: str, preemption: Preemption) -> tuple[Any, float]:
        """What it left, and its seconds."""
        arguments = ["train", "--config", str(resolved), "--output", str(output)]
        arguments += ["--scaling", cell.scaling, "--repeat", str(cell.repeat)]
        arguments += ["--study-id", study_id, "--anatomy", variant]
        if transformed is not None:
            arguments += ["--transformed", str(transformed)]
        seconds = launch(
            cell.framework,
            arguments,
            logs=output / variant,
            layout=Layout(workers=cell.workers),
            network=config.network,
            threads_per_worker=config.study.threads_per_worker,
            environment={tracking.RUN_ID_VARIABLE: run_id, **config.child_variables},
            on_event=on_event,
            on_line=listener.on_line,
            preemption=preemption,
        )
        if not (output / result).exists():
            if preemption.asked:
                raise PreemptedError("asked to end before all was measured")
            raise WorkError(f"{name} ended without a result ({output})")
        return json.loads((output / result).read_text()), seconds

    listener.on_progress(cell, 0, config.training.steps)
    found, tags, wall_seconds = {}, {}, 0.0
    with tracking.ended_if_failed(config, run_id), Preemption().watched() as preemption:
        if cell.workers > 1 and cell.strategy not in WITHOUT_ALL_REDUCE:
            by_size, wall_seconds = run("together", ALL_REDUCE_NAME, preemption)
            samples = [Sample(cell.workers, int(size), took) for size, took in by_size.items()]
            link, _ = fit_link(samples)
            found = {
                "all_reduce_latency_seconds": link.latency_seconds,
                "all_reduce_seconds_per_byte": link.seconds_per_byte,
            }
            tags = {ALL_REDUCE_TAG: json.dumps(by_size)}
        # Last, since it ends the run.
        _, seconds = run("alone", RESULT_NAME, preemption)
        found["wall_seconds"] = wall_seconds + seconds
        tracking.log_metrics(config, run_id, found, tags)
        tracking.finish_run(config, run_id, "FINISHED")  # as rank 0 has, if it could
    return run_id
