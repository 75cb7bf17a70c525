"""Fixtures for every package's tests, in both environments: nothing here imports a framework."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import Config, load_config
from pipelines.environments import PROJECT_ROOT
from pipelines.ingest import Dataset, ingest

QUICKSTART = PROJECT_ROOT / "configs" / "quickstart.yaml"
SMALL = ("training.steps=12", "training.warmup_steps=2", "training.batch_size_per_worker=16")
FROM_THE_LAUNCHER = ("RANK", "WORLD_SIZE", "TF_CONFIG", "MLFLOW_RUN_ID", "TANDEM_DEBUG")


@pytest.fixture(autouse=True)
def no_launcher_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see the same environment on a laptop and inside somebody's training pod."""
    for variable in FROM_THE_LAUNCHER:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def load_quickstart(tmp_path: Path) -> Callable[..., Config]:
    """The shipped quickstart, shrunk, with everything it writes under ``tmp_path``."""

    def load(*overrides: str) -> Config:
        return load_config(QUICKSTART, [f"output={tmp_path / 'out'}", *SMALL, *overrides])

    return load


@pytest.fixture
def quickstart(load_quickstart: Callable[..., Config]) -> Config:
    return load_quickstart()


@pytest.fixture
def digits(quickstart: Config) -> Dataset:
    """The quickstart's dataset, ingested."""
    return ingest(quickstart)[0]
