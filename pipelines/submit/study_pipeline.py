"""The study as a pipeline of Kubeflow's: ingest, parity, every cell of the matrix, compare.

A component's body runs in a process, or pod, of its own: all that it needs is imported inside.
"""

import json
from dataclasses import asdict

import yaml
from kfp import dsl

from pipelines.config import Config
from pipelines.strategies import FRAMEWORKS, Framework
from pipelines.study import plan

__all__ = ["build_ingest_pipeline", "build_study_pipeline"]

_RETRIES = 1
"""Of a cell's step, before the study counts as failed."""


def build_study_pipeline(config: Config) -> dsl.base_component.BaseComponent:
    """From raw data to the report, as ``tandem study`` and ``tandem compare`` would.

    At most ``cluster.parallelism`` cells run at once, in lanes: a cell begins when the one that
    comes so many places before it in the study's order has ended. No step is answered from a cache:
    a measurement that was not made is none.
    """
    settings = yaml.safe_dump(config.without_secrets(), sort_keys=False)
    cells = list(plan(config))
    core = dsl.component(base_image=config.cluster.image("core"), install_kfp_package=False)

    @dsl.pipeline(name=f"{config.name}-study")
    def dag() -> None:
        begun = _fresh(core(ingest)(settings=settings))
        said = {each: _describe(config, each, settings, begun) for each in FRAMEWORKS}
        proven = _fresh(
            core(parity)(
                settings=settings,
                study_id=begun.output,
                tf_software=said["tf"].output,
                torch_software=said["torch"].output,
            )
        )
        ended: list[dsl.PipelineTask] = []
        for number, cell in enumerate(cells):
            task = _fresh(
                core(train_cell)(
                    settings=settings, study_id=begun.output, cell=json.dumps(asdict(cell))
                )
            )
            task.set_display_name(cell.name).set_retry(_RETRIES)
            before = number - config.cluster.parallelism
            ended.append(task.after(ended[before] if before >= 0 else proven))
        last = ended[-config.cluster.parallelism :]
        _fresh(core(compare)(settings=settings, study_id=begun.output)).after(*last)

    return dag


def build_ingest_pipeline(config: Config) -> dsl.base_component.BaseComponent:
    """Ingestion alone, for those pipelines that begin with a dataset."""
    settings = yaml.safe_dump(config.without_secrets(), sort_keys=False)
    core = dsl.component(base_image=config.cluster.image("core"), install_kfp_package=False)

    @dsl.pipeline(name=f"{config.name}-ingest")
    def dag() -> None:
        _fresh(core(ingest)(settings=settings))

    return dag


def _describe(
    config: Config, framework: Framework, settings: str, begun: dsl.PipelineTask
) -> dsl.PipelineTask:
    """In the framework's image, beside the devices that it will train on."""
    image = config.cluster.image(framework)
    component = dsl.component(base_image=image, install_kfp_package=False)
    task = _fresh(component(software)(settings=settings, framework=framework)).after(begun)
    if config.cluster.accelerator.kind == "gpu":
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    return task.set_display_name(f"{framework} software")


def _fresh(task: dsl.PipelineTask) -> dsl.PipelineTask:
    return task.set_caching_options(False)


def ingest(settings: str) -> str:
    """Raw data to Parquet; gives the study its id."""
    from pipelines.submit.steps import begin_study

    return begin_study(settings)


def software(settings: str, framework: str) -> str:
    """Ask a framework what it is."""
    from pipelines.submit.steps import describe_software

    return describe_software(settings, framework)


def parity(settings: str, study_id: str, tf_software: str, torch_software: str) -> None:
    """Prove that both frameworks compute the same, or fail."""
    from pipelines.submit.steps import prove_parity

    prove_parity(settings, study_id, {"tf": tf_software, "torch": torch_software})


def train_cell(settings: str, study_id: str, cell: str) -> None:
    """Measure one cell of the matrix, by a training job where this is a cluster."""
    import json

    from pipelines.cell import Cell
    from pipelines.submit.steps import train_cell as measure

    print(f"run {measure(settings, study_id, Cell(**json.loads(cell)))}")


def compare(settings: str, study_id: str, report: dsl.Output[dsl.HTML]) -> None:
    """From the cells' runs to the report."""
    from pathlib import Path

    from pipelines.submit.steps import compare_study

    compare_study(settings, study_id, Path(report.path))
