"""Where the DAG runs: on this machine, or compiled for Kubeflow Pipelines."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from absl import logging as absl_logging
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import v1 as tfx
from tfx.orchestration.portable import python_executor_operator

from pipelines.component_work import announce, component_work, counted_processes
from pipelines.config import Config
from pipelines.dag import DagEnvironment, PipelineResult
from pipelines.errors import WorkError
from tf_pipeline.evaluate import read_metrics
from tf_pipeline.pipeline import STAGE_OF, build_pipeline

__all__ = ["compile_kubeflow", "run_local"]


def run_local(config: Config, output: Path, workers: int = 1) -> PipelineResult:
    """Run the DAG in this process, under ``output``; it trains on ``workers`` workers.

    What has not changed since an earlier run comes from the cache.
    """
    environment = DagEnvironment.local("tf_pipeline", config, output, workers)
    pipeline = build_pipeline(config, environment)
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(
        str(output / "metadata.db")
    )
    pipeline.metadata_connection_config = connection
    store = MetadataStore(connection)
    earlier = {execution.id for execution in store.get_executions()}
    with _announced_components(), _timed_executors(), counted_processes() as processes:
        tfx.orchestration.LocalDagRunner().run(pipeline)
    result = _collect(config, store, earlier, processes.count)
    result.write(output)
    return result


def compile_kubeflow(config: Config, environment: DagEnvironment, output: Path) -> Path:
    """Compile the DAG for Kubeflow Pipelines v2; returns the YAML's path."""
    output.mkdir(parents=True, exist_ok=True)
    pipeline = build_pipeline(config, environment)
    runner = tfx.orchestration.experimental.KubeflowV2DagRunner(
        config=tfx.orchestration.experimental.KubeflowV2DagRunnerConfig(
            default_image=environment.image, use_pipeline_spec_2_1=True
        ),
        output_dir=str(output),
        output_filename="tf_pipeline.yaml",
    )
    runner.run(pipeline, write_out=True)
    return output / "tf_pipeline.yaml"


@contextmanager
def _announced_components() -> Iterator[None]:
    """Turn the runner's log lines into progress events."""

    class Announce(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            begun = re.fullmatch(r"Component (\w+) is running\.", record.getMessage())
            if begun:
                announce(begun[1], len(STAGE_OF))

    handler = Announce()
    logger = absl_logging.get_absl_logger()
    # Through absl itself: TensorFlow puts back absl's own verbosity whenever it saves a model.
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        absl_logging.set_verbosity(verbosity)


@contextmanager
def _timed_executors() -> Iterator[None]:
    """Tell what each executor takes of its component's time.

    TFX offers no hook there: its operators, Beam's too, call every executor by this one function.
    """
    original = python_executor_operator.run_with_executor

    def timed(execution_info: Any, executor: Any) -> Any:
        with component_work(execution_info.pipeline_node.node_info.id):
            return original(execution_info, executor)

    python_executor_operator.run_with_executor = timed
    try:
        yield
    finally:
        python_executor_operator.run_with_executor = original


def _collect(
    config: Config, store: MetadataStore, earlier: set[int], processes: int
) -> PipelineResult:
    """Read from ML Metadata what the newest executions took and made."""
    components: dict[str, float] = {}
    cached: list[str] = []
    outputs: dict[str, mlmd.Artifact] = {}
    for execution in store.get_executions():
        if execution.id in earlier:
            continue
        name = _component_of(store, execution)
        took = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        components[name] = took / 1000
        if execution.last_known_state == mlmd.Execution.CACHED:
            cached.append(name)
        outputs.update(_outputs_of(store, execution))
    evaluation = tfma.load_eval_result(outputs["evaluation"].uri)
    found = evaluation.slicing_metrics[0][1][""][""]
    blessed = outputs["blessing"].custom_properties["blessed"].int_value == 1
    return PipelineResult.collect(
        components,
        STAGE_OF,
        cached=cached,
        blessed=blessed,
        metrics=read_metrics(
            config.workload, {name: value.get("doubleValue") for name, value in found.items()}
        ),
        pushed_to=_pushed_to(outputs["pushed_model"]) if blessed else None,
        processes=processes,
    )


def _component_of(store: MetadataStore, execution: mlmd.Execution) -> str:
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == "node":
            return str(context.name).rpartition(".")[2]
    raise WorkError(f"ML Metadata: execution {execution.id} belongs to no component")


def _outputs_of(store: MetadataStore, execution: mlmd.Execution) -> dict[str, mlmd.Artifact]:
    """Channel name -> artifact."""
    made = {
        event.artifact_id: event.path.steps[0].key
        for event in store.get_events_by_execution_ids([execution.id])
        if event.type == mlmd.Event.OUTPUT
    }
    return {made[artifact.id]: artifact for artifact in store.get_artifacts_by_id(list(made))}


def _pushed_to(pushed: mlmd.Artifact) -> str:
    return str(pushed.custom_properties["pushed_destination"].string_value)
