"""Documents of Kubeflow Pipelines' API and of Kubernetes, made by hand: no cluster wrote them."""

from datetime import UTC, datetime, timedelta
from typing import Any

BEGIN = datetime(2026, 11, 25, 12, tzinfo=UTC)
UNSET = "1970-01-01T00:00:00Z"


def at(seconds: float) -> str:
    return (BEGIN + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def task(
    name: str,
    number: int,
    start: float | None,
    end: float | None,
    *children: int,
    kind: str = "",
    running: float | None = None,
    state: str = "SUCCEEDED",
) -> dict[str, Any]:
    """As the API has it: children by their nodes' names, pods by their own."""
    states = [("PENDING", start), ("RUNNING", running), ("SUCCEEDED", end)]
    return {
        "run_id": "r1",
        "task_id": f"t{number}",
        "display_name": name,
        "create_time": at(0),
        "start_time": UNSET if start is None else at(start),
        "end_time": UNSET if end is None else at(end),
        "state": state,
        "pod_name": f"quick-x7-{kind}{number}",
        "state_history": [
            {"update_time": at(time), "state": state} for state, time in states if time is not None
        ],
        "child_tasks": [{"pod_name": f"quick-x7-{child}"} for child in children],
    }


DAG_DRIVER, DRIVER, OWN = "system-dag-driver-", "system-container-driver-", "system-container-impl-"


def run(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "run_id": "r1",
        "display_name": "quickstart",
        "created_at": at(0),
        "finished_at": at(100),
        "state": "SUCCEEDED",
        "run_details": {"task_details": [*tasks]},
    } | fields


def quickstart() -> dict[str, Any]:
    """``train`` waits for ``validate``; ``transform``, beside ``train``, comes from the cache."""
    return run(
        task("quick-x7", 1, 0, 100, 2),
        task("root-driver", 2, 0, 5, 3, kind=DAG_DRIVER, running=2),
        task("root", 3, 5, 100, 10, 30),
        task("validate-driver", 10, 5, 12, 11, kind=DRIVER, running=8),
        task("validate", 11, 12, 30, 12),
        task("executor", 12, 12, 30, 20, kind=OWN, running=22),
        task("train-driver", 20, 30, 36, 21, kind=DRIVER, running=33),
        task("train", 21, 36, 96, 22),
        task("executor", 22, 36, 96, kind=OWN, running=66),
        task("transform-driver", 30, 30, 35, 31, kind=DRIVER, running=32),
        task("transform", 31, 35, 35, 32),
        task("executor", 32, None, None, kind=OWN, state="SKIPPED"),
    )


def event(
    pod: str, reason: str, seconds: float, message: str = "", container: str = ""
) -> dict[str, Any]:
    about = {"kind": "Pod", "namespace": "kubeflow", "name": pod}
    if container:
        about["fieldPath"] = f"spec.containers{{{container}}}"
    return {
        "metadata": {"name": f"{pod}.{container}.{reason}"},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "firstTimestamp": at(seconds),
        "lastTimestamp": at(seconds),
        "eventTime": None,
        "type": "Normal",
    }


TRAIN_POD = f"quick-x7-{OWN}22"


def train_events() -> dict[str, Any]:
    pulled = 'Successfully pulled image "tandem-torch:0.1" in 20.5s (25.25s including waiting)'
    scheduled = event(TRAIN_POD, "Scheduled", 0) | {"firstTimestamp": None}
    return {
        "kind": "EventList",
        "items": [
            scheduled | {"eventTime": at(40.5)},
            event(TRAIN_POD, "Pulled", 41, "already present on machine", "wait"),
            event(TRAIN_POD, "Pulling", 41, container="main"),
            event(TRAIN_POD, "Pulled", 66, pulled, "main"),
            event(TRAIN_POD, "Created", 67, container="main"),
            event(TRAIN_POD, "Started", 68, container="main"),
            event(TRAIN_POD, "Started", 69, container="wait"),
            event("quick-x7", "WorkflowRunning", 1)
            | {"involvedObject": {"kind": "Workflow", "name": "quick-x7"}},
        ],
    }
