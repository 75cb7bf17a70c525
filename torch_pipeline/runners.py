"""Where the DAG runs: on this machine, or compiled for Kubeflow Pipelines."""

import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kfp import compiler, local

from pipelines.component_work import announce, counted_processes
from pipelines.config import Config
from pipelines.dag import DagEnvironment, PipelineResult
from pipelines.metrics import METRICS
from torch_pipeline.pipeline import STAGE_OF, build_pipeline

__all__ = ["compile_kubeflow", "run_local"]


def run_local(config: Config, output: Path, workers: int = 1) -> PipelineResult:
    """Run the DAG, a process per component, under ``output``; it trains on ``workers`` workers.

    What has not changed since an earlier run comes from the cache.
    """
    environment = DagEnvironment.local("torch_pipeline", config, output, workers)
    pipeline = build_pipeline(config, environment)
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=environment.artifacts,
        enable_caching=True,
        cache_root=str(output / "cache"),
    )
    with _watched_components() as watch, counted_processes() as processes:
        outputs = pipeline().outputs
    blessed = outputs["blessing"] == "blessed"
    result = PipelineResult.collect(
        watch.seconds,
        STAGE_OF,
        cached=watch.cached,
        blessed=blessed,
        metrics={
            name: value for name, value in outputs["metrics"].metadata.items() if name in METRICS
        },
        pushed_to=_published(environment) if blessed else None,
        processes=processes.count,
    )
    result.write(output)
    return result


def compile_kubeflow(config: Config, environment: DagEnvironment, output: Path) -> Path:
    """Compile the DAG for Kubeflow Pipelines v2; returns the YAML's path."""
    output.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(
        build_pipeline(config, environment), str(output / "torch_pipeline.yaml")
    )
    return output / "torch_pipeline.yaml"


def _published(environment: DagEnvironment) -> str | None:
    """The version that this DAG published, now or when its cached push ran."""
    for note in sorted(Path(environment.serving).glob("*/provenance.json"), reverse=True):
        if json.loads(note.read_text())["cache_key"] == environment.cache_key:
            return str(note.parent)
    return None


class _Watch(logging.Filter):
    """Reads from the runner's log lines which component runs, for how long, or was cached."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self.cached: list[str] = []
        self._started: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = re.sub(r"\x1b\[\d+m", "", record.getMessage())  # without colours
        if begun := re.fullmatch(r"Executing task '(.+)'", message):
            announce(begun[1], len(STAGE_OF))
            self._started[begun[1]] = time.perf_counter()
        elif ended := re.fullmatch(r"Task '(.+)' finished with status \w+", message):
            self.seconds[ended[1]] = time.perf_counter() - self._started[ended[1]]
        elif hit := re.match(r"Task (\S+) cache hit", message):
            announce(hit[1], len(STAGE_OF))
            self.seconds[hit[1]] = 0.0
            self.cached.append(hit[1])
        return True


@contextmanager
def _watched_components() -> Iterator[_Watch]:
    watch = _Watch()
    logger = logging.getLogger()  # kfp logs to the root, and swaps its handlers meanwhile
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addFilter(watch)
    try:
        yield watch
    finally:
        logger.removeFilter(watch)
        logger.setLevel(level)
