"""Writing a dataset: shards first, manifest last, then one rename.

Until the rename nothing is readable under the final name, so a killed ingestion leaves no
half-written dataset.
"""

import hashlib
import io
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.manifest import (
    MANIFEST_NAME,
    ColumnStatistics,
    Manifest,
    Shard,
    Split,
    fingerprint,
)
from pipelines.ingest.sources import RawData
from pipelines.ingest.splits import position, split_of

__all__ = ["request_digest", "write_dataset"]


def request_digest(config: DataConfig) -> str:
    """SHA-256 of the fields that decide a dataset's content."""
    asked = config.model_dump_json(include={"source", "splits", "rows_per_shard"})
    return hashlib.sha256(asked.encode()).hexdigest()


def write_dataset(raw: RawData, config: DataConfig, folder: Path) -> Manifest:
    """Split, shard and publish rows under ``folder``; a dataset already there is replaced.

    Raises:
        InputError: if the folder holds something that is not a dataset.
    """
    _refuse_foreign_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    shards: list[Shard] = []
    train = raw.table.schema.empty_table()
    for split, table in _split(raw.table, config).items():
        if not table.num_rows:
            raise InputError(
                f"data.splits: no example of {raw.description['name']} falls in {split}"
            )
        shards += _write_shards(table, split, temporary, config.rows_per_shard)
        if split == "train":
            train = table
    shares: dict[Split, float] = {"train": config.splits.train, "eval": config.splits.eval}
    manifest = Manifest(
        source=raw.description,
        request=request_digest(config),
        split_shares=shares,
        features=raw.features,
        label=raw.label,
        classes=raw.classes,
        statistics={
            feature.name: _statistics(train.column(feature.name))
            for feature in raw.features
            if feature.dtype == "float32"
        },
        shards=shards,
        fingerprint=fingerprint(raw.features, raw.label, shares, shards),
    )
    (temporary / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n")
    _publish(temporary, folder)
    return manifest


def _refuse_foreign_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"data.output: {folder} is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST_NAME).exists():
        raise InputError(
            f"data.output: {folder} holds something that is not a dataset; "
            "name another folder or empty this one"
        )


def _split(table: pa.Table, config: DataConfig) -> dict[Split, pa.Table]:
    """Each split's rows in order of their position, which the source's order cannot influence."""
    shares: dict[Split, float] = {"train": config.splits.train, "eval": config.splits.eval}
    rows: dict[Split, list[tuple[float, int]]] = {"train": [], "eval": []}
    for index, example_id in enumerate(table.column("example_id").to_pylist()):
        at = position(example_id)
        rows[split_of(at, shares)].append((at, index))
    return {
        split: table.take(pa.array([index for _, index in sorted(placed)], pa.int64()))
        for split, placed in rows.items()
    }


def _write_shards(table: pa.Table, split: Split, folder: Path, rows_per_shard: int) -> list[Shard]:
    (folder / f"split={split}").mkdir(parents=True)
    count = -(-table.num_rows // rows_per_shard)
    shards = []
    for number in range(count):
        rows = table.slice(number * rows_per_shard, rows_per_shard).combine_chunks()
        path = f"split={split}/part-{number:05d}-of-{count:05d}.parquet"
        encoded = io.BytesIO()
        pq.write_table(rows, encoded, compression="zstd")
        (folder / path).write_bytes(encoded.getvalue())
        shards.append(
            Shard(
                path=path,
                split=split,
                rows=rows.num_rows,
                sha256=hashlib.sha256(encoded.getvalue()).hexdigest(),
                content_sha256=_content_digest(rows),
            )
        )
    return shards


def _content_digest(rows: pa.Table) -> str:
    """SHA-256 of the rows as one Arrow IPC stream, whose bytes the format fixes."""
    sink = pa.BufferOutputStream()
    # Taking the rows anew drops offsets into a larger table, which would leak into the stream.
    compact = rows.take(list(range(rows.num_rows))).combine_chunks()
    with pa.ipc.new_stream(sink, compact.schema) as stream:
        stream.write_table(compact)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _statistics(column: pa.ChunkedArray) -> ColumnStatistics:
    import numpy as np

    array = column.combine_chunks()
    values = array.flatten() if pa.types.is_fixed_size_list(array.type) else array
    elements = values.drop_null().to_numpy(zero_copy_only=False).astype(np.float64)
    elements = elements[np.isfinite(elements)]  # validation counts the others
    return ColumnStatistics(
        mean=float(elements.mean()),
        std=float(elements.std()),
        min=float(elements.min()),
        max=float(elements.max()),
    )


def _publish(temporary: Path, folder: Path) -> None:
    replaced = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    temporary.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
