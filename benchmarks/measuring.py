"""What measuring costs: steps with all that is measured against steps that are only counted.

End to end, in one process, blocks with and without take turns (``benchmarks/measured.py``): by the
wall clock, and by the processor time of the process, on which other programs' use of the cores has
less influence. A machine that others use too may not resolve half a per cent by either, wherefore
the same is told by its parts: what the recording calls take, in a loop of nothing else, and the
processor time of MLflow's sampling, each over the time in which it comes up once.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import repeat
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import bootstrap

from benchmarks.data import OutputOption, ScratchOption, scratch_folder
from benchmarks.measured import BLOCKS_NAME
from benchmarks.report import keep, record_of
from pipelines import recorder, tracking
from pipelines.checkpoint_config import CheckpointConfig
from pipelines.checkpoints import Checkpoints
from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.goodput import CATEGORIES
from pipelines.ingest import ingest
from pipelines.launch import launch
from pipelines.metrics import PHASES
from pipelines.parity.software import describe_frameworks
from pipelines.preemption import Preemption
from pipelines.recorder import Recorder, StepClock
from pipelines.resources import HostMeter
from pipelines.saver import Saver
from pipelines.strategies import FRAMEWORK_TITLES, FRAMEWORKS, Framework
from pipelines.tracking.tracked import SYSTEM_METRICS_SECONDS
from pipelines.worker import Worker

__all__ = ["recording_seconds"]

_ASKED = 0.005
"""Of a step's time, at most."""
_WARMUP_STEPS = 50
_CALLS, _ROUNDS = 10_000, 7


def main(
    pairs: Annotated[int, typer.Option(min=2, help="Blocks of each kind.")] = 100,
    block: Annotated[int, typer.Option(min=1, help="Steps of a block.")] = 50,
    output: OutputOption = None,
    scratch: ScratchOption = None,
) -> None:
    """Everything that is measured, on and off, of the quickstart's network on one worker."""
    per_step, per_event = recording_seconds()
    with scratch_folder(scratch) as folder:
        config = _config(folder, pairs, block)
        ingest(config)
        tracking.prepare_store(config)
        found = {
            framework: _evaluate(_measure(config, framework, block), block, per_step, per_event)
            for framework in FRAMEWORKS
        }
        versions = describe_frameworks(config)
    _print(found)
    if output is not None:
        record = record_of("measuring") | {
            "versions": {name: each["framework_version"] for name, each in versions.items()},
            "settings": {"pairs": pairs, "block": block, "warmup_steps": _WARMUP_STEPS},
            "asked": _ASKED,
            "recording_seconds": {"per_step": per_step, "per_event": per_event},
            "frameworks": found,
        }
        keep(record, output)


def recording_seconds() -> tuple[float, float]:
    """What a step's calls take beyond calls that do nothing, and telling of a step: seconds."""
    silent, idle, talking = (
        [_seconds_per_call(seconds, nothing) for _ in range(_ROUNDS)]
        for seconds, nothing in ((1e9, False), (1e9, True), (-1.0, False))
    )
    return median(silent) - median(idle), median(talking) - median(silent)


def _config(output: Path, pairs: int, block: int) -> Config:
    steps = _WARMUP_STEPS + 2 * pairs * block + 1
    settings = (f"output={output}", "name=measuring", "study.workers=[1]")
    training = (f"training.steps={steps}", f"training.warmup_steps={_WARMUP_STEPS}")
    return load_config(PROJECT_ROOT / "configs" / "quickstart.yaml", [*settings, *training])


def _measure(config: Config, framework: Framework, block: int) -> dict[str, Any]:
    """What the blocks of one run took."""
    typer.echo(f"{FRAMEWORK_TITLES[framework]}: {config.training.steps} steps", err=True)
    folder = config.output / framework
    folder.mkdir()
    arguments = ["train", "--config", str(config.dump(folder / "config.yaml"))]
    launch(
        framework,
        [framework, str(block), *arguments, "--output", str(folder)],
        logs=folder,
        threads_per_worker=config.study.threads_per_worker,
        environment=config.child_variables,
        module="benchmarks.measured",
    )
    found: dict[str, Any] = json.loads((folder / BLOCKS_NAME).read_text())
    return found


def _evaluate(
    found: dict[str, Any], block: int, per_step: float, per_event: float
) -> dict[str, Any]:
    """Of a run's blocks, and of the parts, what they are of a step."""
    blocks: list[tuple[bool, float, float]] = found["blocks"]
    neighbours = [*zip(blocks[::2], blocks[1::2], strict=False)]
    walls, spent = (
        [{each[0]: each[clock] for each in both} for both in neighbours] for clock in (1, 2)
    )
    step_seconds = median(pair[False] for pair in walls) / block
    sampling = found["sampling_seconds"] / max(found["samples"], 1)
    parts = {
        "calls": per_step / step_seconds,
        "events": per_event / recorder._SECONDS_BETWEEN_EVENTS,
        "system_metrics": sampling / SYSTEM_METRICS_SECONDS,
    }
    directly = sum(parts.values())
    return {
        "step_seconds": step_seconds,
        "end_to_end": _extra(walls),
        "end_to_end_processor": _extra(spent),
        "parts": parts,
        "directly": directly,
        "met": directly <= _ASKED,
        "sample_seconds": sampling,
        "samples": found["samples"],
        "blocks": blocks,
    }


def _extra(pairs: list[dict[bool, float]]) -> dict[str, Any]:
    """What a measured block takes beyond its neighbour, as a share of it.

    The mean, since a block in several has a sample of the system's metrics, and no median would.
    """
    extra = np.log([pair[True] / pair[False] for pair in pairs])
    resampled = bootstrap((extra,), np.mean, method="percentile", rng=np.random.default_rng(0))
    low, high = np.expm1(resampled.confidence_interval)
    return {"mean": math.expm1(extra.mean()), "interval95": [float(low), float(high)]}


def _seconds_per_call(seconds_between_events: float, nothing: bool) -> float:
    """Of a loop whose steps do nothing, with the calls that each step makes."""
    with tempfile.TemporaryDirectory() as folder, _set_interval(seconds_between_events), _heard():
        clock, keep_going, batches = _loop(Path(folder), nothing)
        started = time.perf_counter()
        for done in range(2, _CALLS + 2):
            next(batches)
            clock.step_done()
            keep_going(done)
        return (time.perf_counter() - started) / _CALLS


def _loop(folder: Path, nothing: bool) -> tuple[Any, Callable[[int], bool], Iterator[None]]:
    """A clock, the saver's question, and batches, of a run in its timed steps."""
    if nothing:
        idle: Any = SimpleNamespace(step_done=lambda: None)
        return idle, lambda done: False, repeat(None)
    steps = 10 * _CALLS
    mine = Recorder(born=0.0, meter=HostMeter())
    for phase in PHASES:  # as full an account as there can be
        mine.add(phase, 1.0)
    for category in CATEGORIES:
        mine.aside["train_seconds", category] = 0.1
    clock = StepClock(mine, steps=steps, warmup_steps=1, global_batch_size=1, fence=lambda: None)
    alone: Any = SimpleNamespace(gather_over_workers=lambda strategy, row: row[np.newaxis])
    saver = Saver(
        alone,
        CheckpointConfig(),
        steps=steps,
        store=Checkpoints(folder / "checkpoints", keep=1),
        identity={},
        worker=Worker(),
        strategy=None,
        recorder=mine,
        preemption=Preemption(),
    )
    saver.attach(None, None, clock, lambda: None)
    clock.start()
    batches = clock.waiting(repeat(None))
    next(batches)
    clock.step_done()
    return clock, saver.stop_after, batches


@contextmanager
def _set_interval(seconds: float) -> Iterator[None]:
    before = recorder._SECONDS_BETWEEN_EVENTS
    recorder._SECONDS_BETWEEN_EVENTS = seconds
    try:
        yield
    finally:
        recorder._SECONDS_BETWEEN_EVENTS = before


@contextmanager
def _heard() -> Iterator[None]:
    """What is printed goes to another process, as to a launcher."""
    listener = [sys.executable, "-c", "import sys; [None for line in sys.stdin]"]
    with subprocess.Popen(listener, stdin=subprocess.PIPE, text=True) as heard:
        assert heard.stdin is not None
        with redirect_stdout(heard.stdin):
            yield


def _print(found: dict[Framework, dict[str, Any]]) -> None:
    table = Table(title=f"Measuring, in per cent of a step (asked: at most {_ASKED:.1%})")
    names = [
        "wall clock (95 %)",
        "processor time (95 %)",
        "calls",
        "events",
        "system metrics",
        "directly",
        "met",
    ]
    for heading in ("framework", "step, ms", *names):
        table.add_column(heading, justify="right")
    for framework, each in found.items():
        table.add_row(
            FRAMEWORK_TITLES[framework],
            f"{1000 * each['step_seconds']:.2f}",
            *(
                "{:.2%} ({:.2%} to {:.2%})".format(measured["mean"], *measured["interval95"])
                for measured in (each["end_to_end"], each["end_to_end_processor"])
            ),
            *(f"{share:.3%}" for share in each["parts"].values()),
            f"{each['directly']:.3%}",
            "yes" if each["met"] else "NO",
        )
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
