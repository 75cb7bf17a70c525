from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import Layout
from pipelines.config import Config
from pipelines.submit.own_pod import own_pod
from pipelines.submit.training_job import JobRequest, build_job

OF_KUBEFLOW = {"KFP_POD_NAME": "study-x7-impl-1", "KFP_POD_UID": "a1b2c3d4"}


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """What Kubernetes tells a pod of its namespace."""
    file = tmp_path / "namespace"
    file.write_text("tandem\n")
    return file


@pytest.mark.parametrize("api", ["trainer", "training-operator"])
def test_a_job_that_a_step_creates_goes_with_the_steps_pod(
    load_submitted: Callable[..., Config],
    validate_job: Callable[[dict[str, Any]], None],
    said: Path,
    api: str,
) -> None:
    request = JobRequest(
        *("study-0000", "torch", Layout(workers=2), ["train", "--output", "/mnt/tandem/cell"]),
        owner=own_pod("tandem", OF_KUBEFLOW, said),
    )

    job = build_job(load_submitted(f"cluster.job_api={api}").cluster, request)

    validate_job(job)
    assert job["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "study-x7-impl-1", "uid": "a1b2c3d4"}
    ]


def test_outside_a_step_and_in_another_namespace_no_pod_owns_a_job(
    said: Path, tmp_path: Path
) -> None:
    assert own_pod("tandem", {}, said) is None
    assert own_pod("another", OF_KUBEFLOW, said) is None
    assert own_pod("tandem", OF_KUBEFLOW, tmp_path / "none") is None
