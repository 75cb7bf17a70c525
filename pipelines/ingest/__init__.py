"""From raw data to Parquet shards that both frameworks can trust."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.config import Config
from pipelines.errors import InputError
from pipelines.ingest.cache import verify_once
from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import MANIFEST_NAME
from pipelines.secrets import shown

__all__ = ["Dataset", "ingest"]


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo what scikit-learn and Dask set for themselves in this process, and leave there.

    Threads and the allocator's limits among it: workers that train afterwards would inherit them.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@_environment_restored()
def ingest(
    config: Config,
    *,
    force: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Dataset, bool]:
    """Make the configured dataset, or reuse it when source and settings are unchanged.

    Returns the dataset, its shards verified, and whether it was reused. ``force`` writes it anew.
    ``on_progress`` is called with the fragments done and the fragments in all. A dataset whose
    source is gone is reused: raw data may be deleted once it is ingested.

    Raises:
        InputError: if the source cannot be read, or the folder holds an altered dataset, one
            made from something else, or something that is no dataset.
    """
    folder = config.dataset_dir
    _refuse_output_in_source(config)
    if (folder / MANIFEST_NAME).exists() and not force:
        return _reused(config, folder), True
    from pipelines.ingest.sources import open_source

    source = open_source(config.data)
    # Beam takes a while to import: not for those who only read a dataset, or misspelt a column.
    with _quiet_import():
        from pipelines.ingest.write import write_dataset

    if write_dataset(source, config.data, folder, replace=force, on_progress=on_progress):
        return Dataset.open(folder), False
    return _reused(config, folder), True  # another process has published it meanwhile


@contextmanager
def _quiet_import() -> Iterator[None]:
    """Beam warns on import that Google's cloud libraries, which nothing here needs, are missing."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _refuse_output_in_source(config: Config) -> None:
    """The shards of one ingestion would be the raw data of the next."""
    paths = config.data.path or []
    for path in [paths] if isinstance(paths, str) else paths:
        if Path(path).is_dir() and config.dataset_dir.resolve().is_relative_to(
            Path(path).resolve()
        ):
            raise InputError(
                f"data.path: {path} takes in {config.dataset_dir}, where the dataset is written; "
                "name a glob, or another output"
            )


def _reused(config: Config, folder: Path) -> Dataset:
    """The dataset that is there, its shards verified, if it is the configured one."""
    dataset = Dataset.open(folder)
    _refuse_another(config, dataset, folder)
    verify_once(dataset)
    return dataset


def _refuse_another(config: Config, dataset: Dataset, folder: Path) -> None:
    from pipelines.ingest.request import request_digest, source_version

    mend = "name another data.output, or replace it with `tandem ingest --force`"
    if dataset.manifest.request != request_digest(config.data):
        raise InputError(f"{folder}: holds a dataset made with other settings; {mend}")
    try:
        version = source_version(config.data)
    except InputError:
        return
    if dataset.manifest.source_version != version:
        source = shown(str(config.data.path or config.data.source))
        raise InputError(
            f"{folder}: {source} has changed since this dataset was made of it; {mend}"
        )
