"""Compiled pipelines run task by task in containers, by kfp's local runner.

It stands for Kubeflow Pipelines' server: it reads the same YAML and starts each task's image with
the same command. It knows nothing of the platform's document, so the claim is mounted here.
"""

from pathlib import Path
from typing import Any

import yaml
from docker.types import Mount
from kfp import components, dsl, local
from kfp.dsl.types import artifact_types

from pipelines.submit.surroundings import dags_of, read_pipeline
from tests.docker.cluster import SERVICE_ACCOUNT, ContainerCluster

__all__ = ["run_compiled"]

_PREFIX = "comp-"


def run_compiled(file: Path, root: Path, cluster: ContainerCluster) -> Path:
    """Run a pipeline as the cluster's; returns a folder with one for each task that ran.

    They hold what the steps hand to each other, and are made under ``root``, a new folder.

    Raises:
        RuntimeError: naming the task, if one failed.
    """
    specification, _ = read_pipeline(file)
    _name_artifacts_by_title(specification)
    _prefix_components(specification)
    for executor in specification["deploymentSpec"]["executors"].values():
        told = cluster.pod_variables.items()
        executor["container"]["env"] += [{"name": name, "value": value} for name, value in told]
    root.mkdir()
    root.chmod(0o777)  # the images' user is none of this machine's
    local.init(
        local.DockerRunner(
            network=cluster.network,
            mounts=[
                Mount(cluster.mount_path, str(cluster.claim), type="bind"),
                Mount(SERVICE_ACCOUNT, str(cluster.service_account), type="bind", read_only=True),
            ],
            read_only=True,
            tmpfs={"/tmp": ""},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size="256m",
        ),
        pipeline_root=str(root),
    )
    components.load_component_from_text(yaml.safe_dump(specification))()
    [run] = root.iterdir()
    return run


def _name_artifacts_by_title(document: Any) -> None:
    """Types that TFX spells out as schemas of their own, in the form that the local runner reads.

    It takes a type by its title and version only, and the title for one of kfp's classes.
    """
    if isinstance(document, list):
        for each in document:
            _name_artifacts_by_title(each)
    elif isinstance(document, dict):
        kind = document.get("artifactType")
        if isinstance(kind, dict) and "instanceSchema" in kind:
            title = yaml.safe_load(kind["instanceSchema"])["title"]
            document["artifactType"] = {"schemaTitle": title, "schemaVersion": "0.0.1"}
            known = artifact_types._SCHEMA_TITLE_TO_TYPE
            if title not in known:
                known[title] = type(title, (dsl.Artifact,), {"schema_title": title})
        for each in document.values():
            _name_artifacts_by_title(each)


def _prefix_components(specification: dict[str, Any]) -> None:
    """The local runner cuts off the prefix that kfp's compiler gives to names; TFX's gives none."""
    components_of = specification["components"]
    for dag in dags_of(specification):
        for task in dag["tasks"].values():
            if not task["componentRef"]["name"].startswith(_PREFIX):
                task["componentRef"]["name"] = _PREFIX + task["componentRef"]["name"]
    specification["components"] = {
        name if name.startswith(_PREFIX) else _PREFIX + name: component
        for name, component in components_of.items()
    }
