"""What a dataset was asked for: told by digests, so that an unchanged request reuses it."""

import hashlib
import json
import platform

from pipelines.data_config import DataConfig
from pipelines.ingest.files import find_files
from pipelines.ingest.schema import read_schema
from pipelines.ingest.sources.synthetic import GENERATOR_VERSION
from pipelines.secrets import shown

__all__ = ["request_digest", "source_version"]


def request_digest(config: DataConfig) -> str:
    """SHA-256 of the settings that decide a dataset's content.

    Raises:
        InputError: if the schema that they name cannot be read.
    """
    schema = read_schema(config.expected).model_dump(mode="json") if config.expected else None
    return _digest(json.dumps([config.decisive(), schema], sort_keys=True))


def source_version(config: DataConfig) -> str:
    """SHA-256 over the names, sizes and times of the files that ``data.path`` names.

    Of what is made up or comes along: over the version of what it is made by or comes with.

    Raises:
        InputError: if they cannot be found.
    """
    if config.source == "synthetic":
        return _digest(str(GENERATOR_VERSION))
    if config.source == "text" and config.path is None:
        return _digest(platform.python_version())  # whose own help it is
    files = find_files(config.path, may_be_empty=True) if config.path else []
    return _digest("\n".join(f"{shown(file.url)} {file.size} {file.version}" for file in files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
