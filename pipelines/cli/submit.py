"""``tandem submit`` and ``tandem train --on kubernetes``, told by a narrator."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.cell import Cell
from pipelines.cli.narrator import Narrator
from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.kubeflow_times import run_times
from pipelines.strategies import Framework
from pipelines.submit.pod_events import PodEvents
from pipelines.submit.submission import JOBS_FOLDER, PipelineName, on_cluster, write_submission
from pipelines.training_run import Listener

__all__ = ["submit", "train_on_kubernetes", "write_dry_run"]


def write_dry_run(
    config: Config,
    narrator: Narrator,
    names: Sequence[PipelineName],
    output: Path | None,
    workers: int = 1,
) -> dict[str, list[str]]:
    """Write every YAML that would be sent, whole or not at all; returns the files' names.

    Raises:
        InputError: if no folder is named, or it holds something that is no dry run.
    """
    if output is None:
        raise InputError("--output: name a folder for what --dry-run writes")
    _refuse_others_files(output)
    unfinished = output.with_name(f".{output.name}.writing")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        with narrator.task("compile") as task:
            task.update(", ".join(names))
            written = write_submission(on_cluster(config), names, unfinished, workers)
            task.outcome = (
                f"{', '.join(written.pipelines)}, whole and loadable; "
                f"{len(written.jobs)} training jobs"
            )
        shutil.rmtree(output, ignore_errors=True)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    files = sorted(str(path) for path in output.rglob("*.yaml"))
    for file in files:
        narrator.say(file)
    return {"files": files}


def submit(
    config: Config,
    narrator: Narrator,
    names: Sequence[PipelineName],
    host: str | None,
    workers: int = 1,
    version: str | None = None,
    token_file: Path | None = None,
    wait: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Compile, upload and run the named pipelines; with ``wait`` one after the other, to the end.

    Returns the ids of their runs, and with ``wait`` their times.

    Raises:
        InputError: if the server refuses it.
        WorkError: if the server fails, or with ``wait`` a run.
    """
    from pipelines.submit.client import KfpClient
    from pipelines.submit.credentials import Credentials
    from pipelines.submit.follow import follow_run

    address = host or config.cluster.host
    if address is None:
        raise InputError("--host: name the address of Kubeflow Pipelines, or set cluster.host")
    own = on_cluster(config)
    cluster = own.cluster
    # Before anything is compiled, which takes longer than being refused.
    client = KfpClient(address, cluster.namespace, Credentials.find(token_file))
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="tandem-submit-") as folder:
        with narrator.task("compile") as task:
            task.update(", ".join(names))
            written = write_submission(own, names, Path(folder), workers)
            task.outcome = ", ".join(written.pipelines)
        experiment = client.experiment(own.name)
        for name, file in written.pipelines.items():
            called = f"{own.name}-{name}"
            with narrator.task(f"submit {name}") as task:
                pipeline_id, version_id, version_name = client.upload(called, file, version)
                run_id = client.start(
                    version_name,
                    experiment,
                    pipeline_id,
                    version_id,
                    cluster.service_account,
                    cluster.pipeline_root,
                )
                task.outcome = f"{called}, version {version_name}: {client.address(run_id)}"
            runs.append({"pipeline": called, "version": version_name, "run_id": run_id})
            if wait:
                events = PodEvents(cluster.namespace)
                with narrator.task(f"run {name}") as task:
                    ended = follow_run(
                        *(client, run_id, cluster.namespace, task.update, narrator.say),
                        on_poll=events.take_now_and_then,
                    )
                    task.outcome = "succeeded"
                runs[-1]["times"] = _tell_times(client.document(ended), events, narrator)
    return {"runs": runs}


def train_on_kubernetes(
    config: Config,
    framework: Framework,
    workers: int,
    narrator: Narrator,
    follow: bool = False,
    max_restarts: int = 0,
) -> dict[str, float]:
    """One training run as a job of the cluster; its folder and its dataset are on the claim."""
    from pipelines.submit.train import train_on_cluster
    from pipelines.tracking import new_study_id

    with narrator.task(f"train {framework}") as task:

        def on_progress(cell: Cell, step: int, steps: int) -> None:
            task.update(f"{cell.name}, step {step}/{steps}", step, steps)

        def on_line(name: str, line: str) -> None:
            if follow:
                narrator.say(f"[{name}] {line}")

        listener = Listener(on_progress, on_line, narrator.say)
        run_id, metrics = train_on_cluster(
            on_cluster(config), framework, workers, new_study_id(), listener, max_restarts
        )
        speed = metrics.get("examples_per_second")
        told = [] if speed is None else [f"{speed:,.0f} examples/s"]
        task.outcome = ", ".join([*told, f"run {run_id} in {config.cluster.tracking_uri}"])
    return metrics


def _tell_times(
    document: Mapping[str, Any], events: PodEvents, narrator: Narrator
) -> dict[str, Any] | None:
    """What a run that has ended well took; None if its record does not tell, which fails nobody."""
    from pipelines.cli.run_times import tell_run_times

    try:
        times = run_times(document, events.starts())
    except InputError as error:
        narrator.say(f"What the run took is not known: {error}")
        return None
    note = events.why_not_all(times.tasks.values())
    tell_run_times(times, note, narrator)
    return {**asdict(times), "overhead_seconds": times.overhead_seconds, "note": note or None}


def _refuse_others_files(output: Path) -> None:
    if not output.exists():
        return
    others = (
        [each.name for each in output.iterdir() if not _is_ours(each)] if output.is_dir() else ["."]
    )
    if others:
        raise InputError(
            f"--output {output}: holds {others[0]}, which no dry run wrote; name another folder"
        )


def _is_ours(path: Path) -> bool:
    return path.name == JOBS_FOLDER or path.name.endswith("_pipeline.yaml")
