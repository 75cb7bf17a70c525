"""What a framework's own transform wrote, for training with ``data.reader: native``."""

import shutil
from pathlib import Path

from pipelines.config import Config
from pipelines.hardware import available_cores
from pipelines.ingest.dataset import Dataset
from pipelines.launch import launch
from pipelines.strategies import Framework

__all__ = ["transformed_examples"]


def transformed_examples(config: Config, dataset: Dataset, framework: Framework) -> Path | None:
    """Their folder, made on first use; None under ``reader: shared``."""
    if config.data.reader == "shared":
        return None
    name = f"{framework}-{dataset.manifest.fingerprint[:16]}"
    folder = config.output / "transformed" / name
    if not folder.exists():
        temporary = folder.with_name(f".{name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        resolved = config.dump(temporary / "config.yaml")
        arguments = ["transform", "--config", str(resolved), "--output", str(temporary)]
        launch(
            framework,
            arguments,
            logs=temporary / "logs",
            threads_per_worker=len(available_cores()),
            environment=config.child_variables,
        )
        temporary.rename(folder)
    return folder
