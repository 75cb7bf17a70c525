"""The sources that ``data.source`` names; each in a module of its own."""

from importlib import import_module

from pipelines.data_config import DataConfig
from pipelines.ingest.sources.base import ID, Fragment, Skip, Source

__all__ = ["ID", "Fragment", "Skip", "Source", "open_source"]

_SOURCES = {
    "csv": "Csv",
    "digits": "Digits",
    "images": "Images",
    "parquet": "Parquet",
    "synthetic": "Synthetic",
    "text": "Text",
    "tfrecord": "TfRecord",
}


def open_source(config: DataConfig) -> Source:
    """Find the configured source's files and columns, reading no more than that takes.

    Raises:
        InputError: naming what cannot be found, read or understood.
    """
    # Imported when chosen: tokenisers and image codecs are slow to load.
    module = import_module(f"pipelines.ingest.sources.{config.source}")
    source: Source = getattr(module, _SOURCES[config.source])(config)
    return source
