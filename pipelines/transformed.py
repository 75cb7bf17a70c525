"""What a framework's own transform wrote, for training with ``data.reader: native``."""

import secrets
import shutil
from pathlib import Path

from pipelines.cluster_config import ClusterConfig
from pipelines.config import Config
from pipelines.hardware import available_cores
from pipelines.ingest.dataset import Dataset
from pipelines.launch import launch
from pipelines.strategies import Framework

__all__ = ["transformed_examples"]


def transformed_examples(config: Config, dataset: Dataset, framework: Framework) -> Path | None:
    """Their folder, made on first use; None under ``reader: shared``.

    Raises:
        WorkError: if the framework's transform failed, with its last lines; its log is kept.
    """
    if config.data.reader == "shared":
        return None
    name = f"{framework}-{dataset.manifest.fingerprint[:16]}"
    folder = config.output / "transformed" / name
    if not folder.exists():
        # One of its own: on a cluster cells may run at once, each in a step that finds none.
        temporary = folder.with_name(f".{name}.{secrets.token_hex(4)}.writing")
        temporary.mkdir(parents=True)
        resolved = config.dump(temporary / "config.yaml")
        cluster = ClusterConfig.of_this_step()
        arguments = ["transform", "--config", str(resolved), "--output", str(temporary)]
        launch(
            framework,
            arguments,
            logs=temporary / "logs",
            threads_per_worker=cluster.threads_per_worker if cluster else len(available_cores()),
            environment=config.child_variables,
        )
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(temporary)  # another's was there first, and is the same
    return folder
