import json

import pytest

from pipelines.errors import InputError
from pipelines.worker import Worker


def tf_config(index: int, workers: int, task: str = "worker", **more: list[str]) -> str:
    addresses = [f"host-{number}:2222" for number in range(workers)]
    cluster = {"worker": addresses, **more}
    return json.dumps({"cluster": cluster, "task": {"type": task, "index": index}})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Worker(0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Worker(0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, Worker(3, 4)),
        ({"TF_CONFIG": tf_config(0, 1)}, Worker(0, 1)),
        ({"TF_CONFIG": tf_config(1, 3)}, Worker(1, 3)),
    ],
)
def test_both_conventions_are_understood(environment: dict[str, str], expected: Worker) -> None:
    assert Worker.from_environment(environment) == expected


def test_the_processs_own_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert Worker.from_environment() == Worker(1, 2)


def test_rank_zero_alone_is_chief() -> None:
    assert [Worker(rank, 3).is_chief for rank in range(3)] == [True, False, False]


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": ""},
        {"RANK": "1.5", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
    ],
    ids=str,
)
def test_a_malformed_rank_is_refused_by_its_variables(environment: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"^environment: RANK, WORLD_SIZE: ") as raised:
        Worker.from_environment(environment)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "null",
        "{}",
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": null}}',
        '{"cluster": {"worker": 3}, "task": {"type": "worker", "index": 0}}',
        tf_config(2, 2),
        tf_config(0, 2, "evaluator", evaluator=["host:1"]),
        tf_config(0, 2, ps=["host:1"]),
        tf_config(0, 2, chief=["host:1", "host:2"]),
    ],
)
def test_a_malformed_tf_config_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InputError, match=r"^environment: TF_CONFIG: ") as raised:
        Worker.from_environment({"TF_CONFIG": text})
    assert len(str(raised.value).splitlines()) == 1


def test_a_chief_of_its_own_comes_before_the_workers() -> None:
    chief = {"chief": ["chief-0:2222"]}
    tasks = [("chief", 0), ("worker", 0), ("worker", 1)]

    found = [
        Worker.from_environment({"TF_CONFIG": tf_config(index, 2, task, **chief)})
        for task, index in tasks
    ]

    assert found == [Worker(0, 3), Worker(1, 3), Worker(2, 3)]


def test_with_parameter_servers_the_chief_coordinates_and_all_others_serve() -> None:
    more = {"chief": ["chief-0:2222"], "ps": ["ps-0:2222"]}
    tasks = [("chief", 0), ("worker", 0), ("worker", 1), ("ps", 0)]

    found = [
        Worker.from_environment({"TF_CONFIG": tf_config(index, 2, task, **more)})
        for task, index in tasks
    ]

    assert [worker.rank for worker in found] == [0, 1, 2, 3]
    assert [worker.role for worker in found] == ["coordinator", "server", "server", "server"]
    assert {worker.workers for worker in found} == {2}
    assert [worker.is_chief for worker in found] == [True, False, False, False]


def test_every_process_may_train_several_replicas() -> None:
    worker = Worker.from_environment({"RANK": "1", "WORLD_SIZE": "2"}, replicas=4)

    assert worker == Worker(1, 2, replicas=4)
    assert worker.all_replicas == 8
