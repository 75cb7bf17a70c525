"""The study as a pipeline of Kubeflow's: ingest, parity, every cell of the matrix, compare.

A component's body runs in a process, or pod, of its own: all that it needs is imported inside.
"""

import json
from dataclasses import asdict

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
    cells, lanes = list(plan(config)), config.cluster.parallelism
    core = dsl.component(base_image=config.cluster.image("core"), install_kfp_package=False)
    begin, prove, measure, conclude = core(ingest), core(parity), core(train_cell), core(compare)

    @dsl.pipeline(name=f"{config.name}-study")
    def dag(settings: str = _settings(config)) -> None:
        begun = _fresh(begin(settings=settings))
        said = {each: _describe(config, each, settings, begun) for each in FRAMEWORKS}
        proven = _fresh(
            prove(
                settings=settings,
                study_id=begun.output,
                tf_software=said["tf"].output,
                torch_software=said["torch"].output,
            )
        )
        ended: list[dsl.PipelineTask] = []
        for number, cell in enumerate(cells):
            told = json.dumps(asdict(cell))
            task = _fresh(measure(settings=settings, study_id=begun.output, cell=told))
            task.set_display_name(cell.name).set_retry(_RETRIES)
            ended.append(task.after(ended[number - lanes] if number >= lanes else proven))
        _fresh(conclude(settings=settings, study_id=begun.output)).after(*ended[-lanes:])

    return dag


def build_ingest_pipeline(config: Config) -> dsl.base_component.BaseComponent:
    """Ingestion alone, for those pipelines that begin with a dataset."""
    core = dsl.component(base_image=config.cluster.image("core"), install_kfp_package=False)
    begin = core(ingest)

    @dsl.pipeline(name=f"{config.name}-ingest")
    def dag(settings: str = _settings(config)) -> None:
        _fresh(begin(settings=settings))

    return dag


def _settings(config: Config) -> str:
    """The configuration as JSON, said once: a workflow of Kubernetes must stay small.

    On one line, since kfp's compiler repeats it in a comment.
    """
    return json.dumps(config.without_secrets())


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
    from pipelines.stage import step_body
    from pipelines.submit.steps import begin_study

    with step_body():
        return begin_study(settings)


def software(settings: str, framework: str) -> str:
    """Ask a framework what it is."""
    from pipelines.stage import step_body
    from pipelines.submit.steps import describe_software

    with step_body():
        return describe_software(settings, framework)


def parity(settings: str, study_id: str, tf_software: str, torch_software: str) -> None:
    """Prove that both frameworks compute the same, or fail."""
    from pipelines.stage import step_body
    from pipelines.submit.steps import prove_parity

    with step_body():
        prove_parity(settings, study_id, {"tf": tf_software, "torch": torch_software})


def train_cell(settings: str, study_id: str, cell: str) -> None:
    """Measure one cell of the matrix, by a training job where this is a cluster."""
    import json

    from pipelines.cell import Cell
    from pipelines.stage import step_body
    from pipelines.submit.steps import train_cell as measure

    with step_body():
        print(f"run {measure(settings, study_id, Cell(**json.loads(cell)))}")


def compare(settings: str, study_id: str, report: dsl.Output[dsl.HTML]) -> None:
    """From the cells' runs to the report."""
    from pathlib import Path

    from pipelines.stage import step_body
    from pipelines.submit.steps import compare_study

    with step_body():
        compare_study(settings, study_id, Path(report.path))
