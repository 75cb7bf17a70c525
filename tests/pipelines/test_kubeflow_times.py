"""On documents made by hand: no cluster has run this."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.kubeflow_times import PodStart, pod_starts, run_times

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
        "metadata": {"name": f"{pod}.{reason}"},
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


def test_a_component_starts_with_its_driver_and_works_in_its_own_container() -> None:
    found = run_times(quickstart())

    assert list(found.tasks) == ["validate", "transform", "train"]
    validate = found.tasks["validate"]
    assert (validate.seconds, validate.startup_seconds, validate.running_seconds) == (25, 17, 8)
    assert (validate.pods, validate.cached) == (2, False)
    assert (validate.scheduling_seconds, validate.pull_seconds) == (None, None)
    assert found.tasks["train"].startup_seconds == 36


def test_a_cached_component_is_its_driver_alone() -> None:
    cached = run_times(quickstart()).tasks["transform"]

    assert (cached.cached, cached.pods, cached.seconds) == (True, 1, 5)
    assert cached.startup_seconds is cached.running_seconds is None


def test_what_no_container_of_a_component_ran_in_is_overhead() -> None:
    found = run_times(quickstart())

    assert found.seconds == 100
    assert found.running_seconds == 8 + 30
    assert found.overhead_seconds == 62
    assert found.pods == 1 + 2 + 2 + 1


def test_components_that_run_at_the_same_time_do_not_count_twice() -> None:
    found = run_times(
        run(
            task("a", 1, 10, 50, 2),
            task("executor", 2, 10, 50, kind=OWN, running=20),
            task("b", 3, 10, 80, 4),
            task("executor", 4, 10, 80, kind=OWN, running=40),
        )
    )

    assert found.running_seconds == 60
    assert found.overhead_seconds == 40
    assert found.pods == 2


def test_a_component_that_was_tried_again_has_a_pod_for_each_attempt() -> None:
    found = run_times(
        run(
            task("train-driver", 1, 0, 5, 2, kind=DRIVER),
            task("train", 2, 5, 60, 3),
            task("executor", 3, 5, 60, 4, 5),
            task("executor(0)", 4, 5, 20, kind=OWN, running=10, state="FAILED"),
            task("executor(1)", 5, 25, 60, kind=OWN, running=30),
        )
    )

    (train,) = found.tasks.values()
    assert (train.pods, train.startup_seconds, train.running_seconds) == (3, 10, 40)


def test_what_a_loop_repeats_is_told_apart() -> None:
    repeated = [
        each
        for number in (1, 11)
        for each in (
            task("train", number, number, number + 9, number + 1),
            task("executor", number + 1, number, number + 9, kind=OWN, running=number + 2),
        )
    ]

    assert list(run_times(run(*repeated)).tasks) == ["train", "train #2"]


def test_where_no_state_tells_when_a_container_ran_nothing_is_said_of_it() -> None:
    found = run_times(run(task("a", 1, 10, 50, 2), task("executor", 2, 10, 50, kind=OWN)))

    assert found.tasks["a"].startup_seconds is found.tasks["a"].running_seconds is None
    assert found.running_seconds == 0


def test_a_pods_events_tell_how_it_came_to_run() -> None:
    started = pod_starts(train_events())

    assert started == {
        TRAIN_POD: PodStart(
            scheduled_at=BEGIN + timedelta(seconds=40.5),
            started_at=BEGIN + timedelta(seconds=68),
            pull_seconds=25.25,
        )
    }
    train = run_times(quickstart(), started).tasks["train"]
    assert (train.scheduling_seconds, train.pull_seconds) == (4.5, 25.25)
    assert (train.startup_seconds, train.running_seconds) == (38, 28)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ('Successfully pulled image "x" in 812.5ms', 0.8125),
        ('Successfully pulled image "x" in 1m2.5s (1m3s including waiting). Image size: 7', 63),
        ('Successfully pulled image "x"', 9),
    ],
)
def test_a_pull_takes_what_the_kubelet_says_else_the_time_between_its_events(
    message: str, seconds: float
) -> None:
    events = [event("p", "Pulling", 1), event("p", "Pulled", 10, message)]

    assert pod_starts({"items": events})["p"].pull_seconds == seconds


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"message": "not found"}, "run of Kubeflow Pipelines: run_details: field required"),
        (run(finished_at=UNSET), "it has not ended"),
        (
            run(task("a", 1, None, None, 2), task("executor", 2, None, None, kind=OWN)),
            "task 'a' has no times",
        ),
    ],
)
def test_what_is_no_ended_run_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_times(document)


def test_what_is_no_list_of_events_is_refused() -> None:
    with pytest.raises(InputError, match="events of Kubernetes: items: field required"):
        pod_starts({"kind": "Status"})


def test_the_documents_are_ones_that_kubeflows_own_client_knows() -> None:
    client = pytest.importorskip("kfp_server_api")
    models = {
        "run": client.V2beta1Run,
        "run_details": client.V2beta1RunDetails,
        "task_details": client.V2beta1PipelineTaskDetail,
        "state_history": client.V2beta1RuntimeStatus,
        "child_tasks": client.PipelineTaskDetailChildTask,
    }

    def check(name: str, value: Any) -> None:
        for each in value if isinstance(value, list) else [value]:
            if name in models:
                assert set(each) <= set(models[name].attribute_map.values())
                for field, inner in each.items():
                    check(field, inner)

    check("run", quickstart())
