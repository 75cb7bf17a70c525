"""Whether a compiled pipeline is whole: all that it refers to is there.

kfp's own loader accepts dangling producers, missing executors and missing images.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import WorkError
from pipelines.submit.surroundings import dags_of, read_pipeline

__all__ = ["check_pipeline", "find_faults"]


def check_pipeline(file: Path) -> None:
    """Refuse a pipeline that is not whole, or that kfp cannot load.

    Raises:
        WorkError: naming the file and what is missing.
    """
    specification, platform = read_pipeline(file)
    faults = list(find_faults(specification, platform))
    if faults:
        raise WorkError(f"{file}: not whole: {'; '.join(faults)}")
    from kfp.components import load_component_from_file

    try:
        load_component_from_file(str(file))
    except Exception as error:
        said = " ".join(str(error).split())
        raise WorkError(f"{file}: kfp cannot load it: {said}") from None


def find_faults(
    specification: Mapping[str, Any], platform: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Everything that a specification refers to and does not have, or has and never uses."""
    components = specification.get("components", {})
    executors = specification.get("deploymentSpec", {}).get("executors", {})
    used: set[str] = set()
    for dag in dags_of(dict(specification)):
        for name, task in dag["tasks"].items():
            used.add(task.get("componentRef", {}).get("name", ""))
            yield from _task_faults(name, task, dag, components)
        yield from _output_faults(dag, components)
    for name in sorted(components.keys() - used):
        yield f"component {name} is no task's"
    labels = set()
    for name, component in components.items():
        if "dag" in component:
            continue
        label = component.get("executorLabel")
        labels.add(label)
        if label not in executors:
            yield f"component {name} has no executor {label}"
    for label in sorted(executors.keys() - labels):
        yield f"executor {label} is no component's"
    for label, executor in executors.items():
        container = executor.get("container")
        if container is not None and not container.get("image"):
            yield f"executor {label} has no image"
    for label in _platform_executors(platform or {}):
        if label not in executors:
            yield f"the platform speaks of an executor {label} that is not there"


def _task_faults(
    name: str, task: Mapping[str, Any], dag: Mapping[str, Any], components: Mapping[str, Any]
) -> Iterator[str]:
    component = task.get("componentRef", {}).get("name")
    if component not in components:
        yield f"task {name} is of component {component}, which is not there"
    for before in task.get("dependentTasks", []):
        if before not in dag["tasks"]:
            yield f"task {name} comes after {before}, which is not there"
    declared = components.get(component, {}).get("inputDefinitions", {})
    for kind in ("artifacts", "parameters"):
        given = task.get("inputs", {}).get(kind, {})
        for key, source in given.items():
            if key not in declared.get(kind, {}):
                yield f"task {name} is given {key}, which {component} does not take"
            yield from _source_faults(f"task {name}: {key}", source, dag, components)
        for key, what in declared.get(kind, {}).items():
            optional = what.get("isOptional") or "defaultValue" in what
            if key not in given and not optional:
                yield f"task {name} is not given {key}"


def _source_faults(
    where: str, source: Mapping[str, Any], dag: Mapping[str, Any], components: Mapping[str, Any]
) -> Iterator[str]:
    """Of one input that another task makes."""
    for field, kind, key in (
        ("taskOutputArtifact", "artifacts", "outputArtifactKey"),
        ("taskOutputParameter", "parameters", "outputParameterKey"),
    ):
        if field in source:
            producer, output = source[field]["producerTask"], source[field][key]
            yield from _producer_faults(where, producer, kind, output, dag, components)


def _producer_faults(
    where: str,
    producer: str,
    kind: str,
    output: str,
    dag: Mapping[str, Any],
    components: Mapping[str, Any],
) -> Iterator[str]:
    if producer not in dag["tasks"]:
        yield f"{where} comes from task {producer}, which is not there"
        return
    component = dag["tasks"][producer].get("componentRef", {}).get("name")
    made = components.get(component, {}).get("outputDefinitions", {}).get(kind, {})
    if output not in made:
        yield f"{where} is {producer}'s {output}, which it does not make"


def _output_faults(dag: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    """Of what the whole DAG returns."""
    outputs = dag.get("outputs", {})
    for name, output in outputs.get("artifacts", {}).items():
        for selector in output.get("artifactSelectors", []):
            yield from _producer_faults(
                f"output {name}",
                selector["producerSubtask"],
                "artifacts",
                selector["outputArtifactKey"],
                dag,
                components,
            )
    for name, output in outputs.get("parameters", {}).items():
        if selector := output.get("valueFromParameter"):
            yield from _producer_faults(
                f"output {name}",
                selector["producerSubtask"],
                "parameters",
                selector["outputParameterKey"],
                dag,
                components,
            )


def _platform_executors(platform: Mapping[str, Any]) -> Iterator[str]:
    for each in platform.get("platforms", {}).values():
        yield from each.get("deploymentSpec", {}).get("executors", {})
