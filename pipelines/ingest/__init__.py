"""From raw data to Parquet shards that both frameworks can trust."""

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import MANIFEST_NAME

__all__ = ["Dataset", "ingest"]


def ingest(config: Config, *, force: bool = False) -> tuple[Dataset, bool]:
    """Make the configured dataset, or reuse it when source and settings are unchanged.

    Returns the dataset, its shards verified, and whether it was reused. ``force`` writes it anew.

    Raises:
        InputError: if the folder holds an altered dataset, or something else.
    """
    from pipelines.ingest.sources import read_source
    from pipelines.ingest.writer import request_digest, write_dataset

    folder = config.dataset_dir
    if (folder / MANIFEST_NAME).exists() and not force:
        dataset = Dataset.open(folder)
        if dataset.manifest.request != request_digest(config.data):
            raise InputError(
                f"{folder}: holds a dataset made with other settings; "
                "name another data.output, or replace it with `tandem ingest --force`"
            )
        dataset.verify()
        return dataset, True
    write_dataset(read_source(config.data), config.data, folder)
    return Dataset.open(folder), False
