import os
import re
from pathlib import Path

import psutil
import pytest

from pipelines.hardware import Machine, available_cores, describe_hardware, parse_hardware


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


def test_what_a_description_says_can_be_read_back() -> None:
    described = "Intel(R) Xeon(R) CPU @ 2.00GHz, 8 cores, 30 GiB, 2 x NVIDIA T4, 1 x NVIDIA L4"

    assert parse_hardware(described) == Machine(8, 30, {"NVIDIA T4": 2, "NVIDIA L4": 1})
    assert parse_hardware(describe_hardware()).cores == psutil.cpu_count()


def test_what_a_description_does_not_say_is_not_known() -> None:
    assert parse_hardware("x86-64, 2 cores") == Machine(2, None, {})
    assert parse_hardware("") == Machine(None, None, {})
