import json

import pytest

from pipelines.cluster import Layout, tasks_of
from pipelines.config import Config, parse_config
from pipelines.errors import InputError
from pipelines.hosts import Host
from pipelines.strategies import STRATEGIES, Framework
from pipelines.worker import Worker


def configured(**sections: object) -> Config:
    return parse_config({"name": "cluster", "study": {"workers": [1]}, **sections}, "test")


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("mirrored", Layout(workers=1, replicas=4)),
        ("tpu", Layout(workers=1, replicas=4)),
        ("multi_worker_mirrored", Layout(workers=4)),
        ("parameter_server", Layout(workers=4, parameter_servers=2)),
    ],
)
def test_a_strategy_says_in_which_processes_its_replicas_train(
    strategy: str, expected: Layout
) -> None:
    config = configured(tf={"strategy": strategy, "parameter_servers": 2})

    assert Layout.of(config, "tf", 4) == expected


@pytest.mark.parametrize("strategy", STRATEGIES["torch"])
def test_pytorch_trains_a_replica_per_process(strategy: str) -> None:
    config = configured(torch={"strategy": strategy}, tf={"strategy": "parameter_server"})

    assert Layout.of(config, "torch", 4) == Layout(workers=4)


def test_a_process_of_several_replicas_is_told_so() -> None:
    assert Layout(replicas=2).arguments == ["--replicas", "2"]
    assert Layout(workers=2).arguments == []


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_every_task_finds_its_own_rank_in_its_environment(framework: Framework) -> None:
    tasks = list(tasks_of(framework, Layout(workers=3)))

    assert [task.name for task in tasks] == ["rank0", "rank1", "rank2"]
    assert [Worker.from_environment(task.variables) for task in tasks] == [
        Worker(rank, 3) for rank in range(3)
    ]
    assert [task.variables["LOCAL_RANK"] for task in tasks] == ["0", "1", "2"]
    assert [task.place for task in tasks] == [0, 1, 2]
    assert not any(task.serves for task in tasks)


def test_parameter_servers_add_a_chief_and_themselves() -> None:
    tasks = list(tasks_of("tf", Layout(workers=2, parameter_servers=1)))

    assert [task.name for task in tasks] == ["chief", "worker0", "worker1", "ps0"]
    assert [task.rank for task in tasks] == [0, 1, 2, 3]
    assert [task.serves for task in tasks] == [False, True, True, True]
    assert [task.place for task in tasks] == [None, 0, 1, None]
    clusters = [json.loads(task.variables["TF_CONFIG"])["cluster"] for task in tasks]
    assert {kind: len(addresses) for kind, addresses in clusters[0].items()} == {
        "chief": 1,
        "worker": 2,
        "ps": 1,
    }
    assert all(cluster == clusters[0] for cluster in clusters)
    addresses = [address for each in clusters[0].values() for address in each]
    assert len(set(addresses)) == 4
    assert [Worker.from_environment(task.variables).role for task in tasks] == [
        "coordinator",
        "server",
        "server",
        "server",
    ]


HOSTS = [Host(f"10.0.0.{number}", f"host-{number}") for number in (1, 2)]


def test_consecutive_torch_workers_share_a_host() -> None:
    tasks = list(tasks_of("torch", Layout(workers=4), HOSTS))

    assert [task.host.namespace for task in tasks] == ["host-1", "host-1", "host-2", "host-2"]
    assert [task.variables["LOCAL_RANK"] for task in tasks] == ["0", "1", "0", "1"]
    assert [task.variables["GROUP_RANK"] for task in tasks] == ["0", "0", "1", "1"]
    assert {task.variables["LOCAL_WORLD_SIZE"] for task in tasks} == {"2"}
    assert {task.variables["MASTER_ADDR"] for task in tasks} == {"10.0.0.1"}
    assert {task.variables["GLOO_SOCKET_IFNAME"] for task in tasks} == {"eth0"}


def test_tf_workers_listen_on_their_own_hosts() -> None:
    tasks = list(tasks_of("tf", Layout(workers=2, parameter_servers=3), HOSTS))

    cluster = json.loads(tasks[0].variables["TF_CONFIG"])["cluster"]
    hosts = {
        kind: [address.partition(":")[0] for address in addresses]
        for kind, addresses in cluster.items()
    }
    assert hosts == {
        "chief": ["10.0.0.1"],
        "worker": ["10.0.0.1", "10.0.0.2"],
        "ps": ["10.0.0.1", "10.0.0.2", "10.0.0.1"],
    }
    assert [task.host.address for task in tasks] == [
        host for each in hosts.values() for host in each
    ]


def test_a_worker_alone_needs_one_host_and_three_cannot_share_two() -> None:
    (task,) = tasks_of("torch", Layout(), HOSTS)
    assert task.host == HOSTS[0]

    with pytest.raises(InputError, match=r"^network\.hosts: 3 workers .* 2 hosts$"):
        tasks_of("torch", Layout(workers=3), HOSTS)
