import json
from pathlib import Path

import pytest

from pipelines.errors import InputError
from pipelines.slurm import slurm_variables
from pipelines.strategies import Framework
from pipelines.worker import Worker

HOSTS = {"gpu[07-08]": "gpu07 gpu08", "gpu07": "gpu07"}


@pytest.fixture(autouse=True)
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Slurm's tool says of the lists that the tests use."""
    cases = "".join(f"'{asked}') echo {said} ;; " for asked, said in HOSTS.items())
    tool = tmp_path / "scontrol"
    tool.write_text('#!/bin/sh\n[ "$1 $2" = "show hostnames" ] || exit 1\n')
    with tool.open("a") as script:
        script.write(f'case "$3" in {cases}*) exit 1 ;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


def step(rank: int, **more: str) -> dict[str, str]:
    """What srun gives task ``rank`` of three: two on the first host, one on the second."""
    return {
        "SLURM_JOB_ID": "123457",
        "SLURM_STEP_ID": "0",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % 2),
        "SLURM_NODEID": str(rank // 2),
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        **more,
    }


def test_a_torch_task_gets_torchruns_variables() -> None:
    found = [slurm_variables("torch", step(rank)) for rank in range(3)]

    assert [each["RANK"] for each in found] == ["0", "1", "2"]
    assert [each["LOCAL_RANK"] for each in found] == ["0", "1", "0"]
    assert [each["LOCAL_WORLD_SIZE"] for each in found] == ["2", "2", "1"]
    assert [each["GROUP_RANK"] for each in found] == ["0", "0", "1"]
    assert {each["WORLD_SIZE"] for each in found} == {"3"}
    assert {each["MASTER_ADDR"] for each in found} == {"gpu07"}
    assert {each["MASTER_PORT"] for each in found} == {"43312"}


def test_a_tf_task_gets_a_tf_config_with_an_address_for_every_task() -> None:
    found = [json.loads(slurm_variables("tf", step(rank))["TF_CONFIG"]) for rank in range(3)]

    assert {json.dumps(each["cluster"]) for each in found} == {
        json.dumps({"worker": ["gpu07:43312", "gpu07:43313", "gpu08:43312"]})
    }
    assert [each["task"] for each in found] == [
        {"type": "worker", "index": rank} for rank in range(3)
    ]


@pytest.mark.parametrize("framework", ["tf", "torch"])
def test_the_worker_is_the_same_in_either_frameworks_words(framework: Framework) -> None:
    found = [Worker.from_environment(slurm_variables(framework, step(rank))) for rank in range(3)]

    assert found == [Worker(rank, 3) for rank in range(3)]


@pytest.mark.parametrize("framework", ["tf", "torch"])
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # the batch script itself
        step(1, RANK="0", WORLD_SIZE="1"),
        step(1, TF_CONFIG="{}"),
    ],
    ids=["no Slurm", "no step", "torchrun within a step", "TF_CONFIG within a step"],
)
def test_nothing_is_added_where_srun_did_not_place_the_process(
    framework: Framework, environment: dict[str, str]
) -> None:
    assert slurm_variables(framework, environment) == {}


def test_the_address_that_the_script_chose_is_kept() -> None:
    found = slurm_variables("torch", step(1, MASTER_ADDR="10.0.0.7", MASTER_PORT="29500"))

    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("10.0.0.7", "29500")


def test_many_alike_nodes_are_counted() -> None:
    alike = step(1, SLURM_STEP_TASKS_PER_NODE="4(x2)", SLURM_NODEID="1")

    assert slurm_variables("torch", alike)["WORLD_SIZE"] == "8"


@pytest.mark.parametrize(
    "more",
    [
        {"SLURM_PROCID": "first"},
        {"SLURM_STEP_TASKS_PER_NODE": "two"},
        {"SLURM_STEP_TASKS_PER_NODE": "3"},
        {"SLURM_STEP_NODELIST": "unknown"},
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_refused_in_one_line(more: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"^environment: SLURM_\*: not understood") as raised:
        slurm_variables("torch", step(0, **more))
    assert len(str(raised.value).splitlines()) == 1
