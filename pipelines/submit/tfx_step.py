"""TFX's entry point of a container, under Kubeflow Pipelines' own launcher.

That launcher fetches what a step reads from any object store to folders of the pod, and stores what
is found in others afterwards. TFX would open the store's addresses itself, of which TensorFlow
knows few. So TFX is given the folders, and the addresses are put back into what it reports.
"""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.stage import step_body

__all__ = ["ENTRY_POINT", "localised", "main", "put_back"]

ENTRY_POINT = "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor"
_ARGUMENT = "--json_serialized_invocation_args"


def main(arguments: list[str]) -> None:
    """Run a TFX component as ``ENTRY_POINT`` does, on local folders."""
    place = arguments.index(_ARGUMENT) + 1
    described = json.loads(arguments[place])
    remote = localised(described)
    sys.argv = [ENTRY_POINT, *arguments[:place], json.dumps(described), *arguments[place + 1 :]]
    with step_body():
        try:
            runpy.run_module(ENTRY_POINT, run_name="__main__", alter_sys=True)
        except SystemExit as end:  # as absl ends every program
            if end.code not in (None, 0):
                raise
    put_back(Path(described["outputs"]["outputFile"]), remote)


def localised(described: dict[str, Any]) -> dict[str, str]:
    """Turn every address in an executor's input into its folder; returns folder -> address."""
    from kfp import dsl

    remote = {}
    for artifact in _artifacts(described):
        folder = dsl.Artifact(uri=artifact["uri"]).path
        remote[folder] = artifact["uri"]
        artifact["uri"] = folder
    return remote


def put_back(report: Path, remote: dict[str, str]) -> None:
    """The addresses again, in what a component reports of its outputs."""
    said = json.loads(report.read_text())
    for artifact in _artifacts({"outputs": said}):
        artifact["uri"] = remote.get(artifact["uri"], artifact["uri"])
    report.write_text(json.dumps(said))


def _artifacts(described: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for side in ("inputs", "outputs"):
        for listed in described.get(side, {}).get("artifacts", {}).values():
            yield from (each for each in listed.get("artifacts", []) if each.get("uri"))


if __name__ == "__main__":
    main(sys.argv[1:])
