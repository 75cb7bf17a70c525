"""On documents made by hand: no cluster has run this."""

from datetime import timedelta
from typing import Any

import pytest

from pipelines.errors import InputError
from pipelines.kubeflow_times import PodStart, pod_starts, run_times
from tests.pipelines.kubeflow_documents import (
    BEGIN,
    DRIVER,
    OWN,
    TRAIN_POD,
    UNSET,
    event,
    quickstart,
    run,
    task,
    train_events,
)


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
    assert found.overhead_seconds is None


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
        (run(), "its record has no component's task"),
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
