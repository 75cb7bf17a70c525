"""What machine this is, in one line that two runs can be compared by."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Machine", "available_cores", "describe_hardware", "parse_hardware"]


@dataclass(frozen=True)
class Machine:
    """What such a line says; None: it does not."""

    cores: int | None
    memory_gib: int | None
    accelerators: dict[str, int]
    """Kind -> number."""


def available_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


def describe_hardware() -> str:
    """Processor, cores, memory and GPUs, such as ``AMD EPYC, 2 cores, 24 GiB``."""
    memory = round(psutil.virtual_memory().total / 2**30)
    parts = [_processor(), f"{psutil.cpu_count()} cores", f"{memory} GiB", *_gpus()]
    return ", ".join(parts)


def parse_hardware(description: str) -> Machine:
    """What ``describe_hardware`` wrote, read back."""
    parts = description.split(", ")

    def number(unit: str) -> int | None:
        found = [match for part in parts if (match := re.fullmatch(rf"(\d+) {unit}", part))]
        return int(found[0][1]) if found else None

    gpus = [match for part in parts if (match := re.fullmatch(r"(\d+) x (.+)", part))]
    return Machine(number("cores"), number("GiB"), {match[2]: int(match[1]) for match in gpus})


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _gpus() -> list[str]:
    """One entry per kind of NVIDIA GPU, such as ``2 x NVIDIA H100``."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run(
        [program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True
    )
    names = listed.stdout.split("\n")[:-1] if listed.returncode == 0 else []
    return [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
