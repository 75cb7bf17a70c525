"""One store for all that is asked of tracking, and runs in it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import tracking
from pipelines.config import Config


@pytest.fixture(scope="package")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the folder, since making one takes a second; every test has its study."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def new_run() -> Callable[..., str]:
    """Opens a cell's run; returns its id."""

    def create(config: Config, name: str = "torch ddp x2 #1", **params: object) -> str:
        return tracking.create_run(config, name, "cell", "20250601T120000Z", params)

    return create


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another working directory, which must stay empty."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []
