import os
import re
from pathlib import Path

import psutil
import pytest

from pipelines.hardware import available_cores, describe_hardware


def test_the_description_is_one_line_and_does_not_change() -> None:
    described = describe_hardware()

    assert described == describe_hardware()
    assert len(described.splitlines()) == 1


def test_the_description_states_processor_cores_and_memory() -> None:
    processor, rest = describe_hardware().split(f", {psutil.cpu_count()} cores, ")

    assert processor.strip()
    assert re.match(r"\d+ GiB(, \d+ x .+)*$", rest)


def test_gpus_of_a_kind_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA T4\\nNVIDIA L4\\nNVIDIA T4\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert describe_hardware().endswith(" GiB, 2 x NVIDIA T4, 1 x NVIDIA L4")


def test_a_driver_that_does_not_answer_means_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'could not communicate with the driver'\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert describe_hardware().endswith(" GiB")


def test_available_cores_are_those_of_this_process() -> None:
    cores = available_cores()

    assert cores == sorted(os.sched_getaffinity(0))
    assert cores
