"""What both twins' tests ask of their framework, under the same names."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import Dataset, ingest
from pipelines.strategies import Framework
from pipelines.workloads import Vision, get_workload
from torch_pipeline.export import MODEL_NAME
from torch_pipeline.transform import fit_transform, load_transform

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
SMALL = ("training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16")

FROM_THE_LAUNCHER = ("RANK", "WORLD_SIZE", "TF_CONFIG", "MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI")


@pytest.fixture(scope="session", autouse=True)
def no_launcher_around_shared_runs() -> Iterator[None]:
    """Runs that several tests share begin before any test's own environment is cleared."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in FROM_THE_LAUNCHER:
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture(scope="session")
def framework() -> Framework:
    return "torch"


@pytest.fixture(scope="session")
def load_shrunk(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """The shipped quickstart, shrunk, with one folder for all tests."""
    output = tmp_path_factory.mktemp("out")

    def load(*overrides: str) -> Config:
        return load_config(QUICKSTART, [f"output={output}", *SMALL, *overrides])

    return load


@pytest.fixture(scope="session")
def config(load_shrunk: Callable[..., Config]) -> Config:
    return load_shrunk()


@pytest.fixture(scope="session")
def workload(config: Config, dataset: Dataset) -> Vision:
    return get_workload(config, dataset.manifest)


@pytest.fixture(scope="session")
def dataset(config: Config) -> Dataset:
    return ingest(config)[0]


@pytest.fixture(scope="session")
def transformed(
    workload: Vision, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that the framework's own transform wrote."""
    output = tmp_path_factory.mktemp("transformed") / "output"
    fit_transform(workload, dataset, output)
    return output


@pytest.fixture(scope="session")
def to_numpy() -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray]]:
    """A batch as arrays: images (batch, height, width, channels) and labels."""
    return lambda features, labels: (features["image"].numpy(), labels.numpy())


@pytest.fixture(scope="session")
def apply_model() -> Callable[[Any, np.ndarray], np.ndarray]:
    """A model's logits of images (batch, height, width, channels)."""

    def apply(model: nn.Module, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model({"image": torch.from_numpy(images)}).numpy()

    return apply


@pytest.fixture(scope="session")
def apply_transform(workload: Vision) -> Callable[[Path, np.ndarray], np.ndarray]:
    """The fitted transform of a folder, applied to raw images."""

    def apply(folder: Path, raw: np.ndarray) -> np.ndarray:
        transform = load_transform(folder)
        return transform({"image": torch.from_numpy(raw)})["image"].numpy()

    return apply


@pytest.fixture(scope="session")
def run_exported() -> Callable[[Path, np.ndarray], np.ndarray]:
    """An exported model's probabilities of raw images."""

    def run(folder: Path, raw: np.ndarray) -> np.ndarray:
        program = torch.export.load(folder / MODEL_NAME).module()
        return program({"image": torch.from_numpy(raw)}).detach().numpy()

    return run


@pytest.fixture(scope="session")
def run_workers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], list[str]]:
    """Run a program as workers that know each other; returns what each of them printed."""

    def run(program: str, workers: int) -> list[str]:
        folder = tmp_path_factory.mktemp("workers")
        with ExitStack() as stack:
            ports = [_free_port(stack) for _ in range(workers)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, **_environment(rank, ports)},
                cwd=folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(workers)
        ]
        try:
            return [process.communicate(timeout=400)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()

    return run


def _free_port(stack: ExitStack) -> int:
    opened = stack.enter_context(socket.socket())
    opened.bind(("127.0.0.1", 0))
    return int(opened.getsockname()[1])


def _environment(rank: int, ports: list[int]) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(len(ports)),
        "LOCAL_WORLD_SIZE": str(len(ports)),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(ports[0]),
    }
