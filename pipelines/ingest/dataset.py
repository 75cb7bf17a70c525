"""An ingested dataset on disk: opened by its manifest, its shards verified before they are read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import InputError
from pipelines.ingest.columns import Columns, to_numpy
from pipelines.ingest.manifest import Manifest, Shard, Split, read_manifest

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A dataset's folder and its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Dataset":
        """Open a dataset without reading its shards.

        Raises:
            InputError: if the folder holds no readable dataset.
        """
        return cls(folder, read_manifest(folder))

    def shards(self, split: Split) -> list[Shard]:
        """The split's shards in order."""
        return [shard for shard in self.manifest.shards if shard.split == split]

    def read(self, shard: Shard) -> pa.Table:
        """One shard as stored.

        Raises:
            InputError: if it is missing or altered.
        """
        # Not by read_table, which starts Arrow's pool of threads whatever it is asked: a process
        # that ends soon after is now and then aborted as it takes them down (apache/arrow#34314;
        # 5 of 360 runs of the DAG's validation).
        content = pa.BufferReader(self._read_verified(shard))
        return pq.ParquetFile(content).read(use_threads=False)

    def tables(self, split: Split) -> Iterator[pa.Table]:
        """A split's shards one after the other, each verified."""
        return (self.read(shard) for shard in self.shards(split))

    def table(self, split: Split) -> pa.Table:
        """All of a split as stored, its shards verified."""
        return pa.concat_tables(self.tables(split))

    def columns(self, split: Split) -> Columns:
        """All of a split in memory, its shards verified, each column in its feature's shape.

        Missing numbers are NaN, which makes their integers floating-point numbers too.

        Raises:
            InputError: naming the first shard that is missing or altered.
        """
        table = self.table(split)
        return {
            feature.name: to_numpy(table.column(feature.name), feature.shape)
            for feature in self.manifest.features
        }

    def _read_verified(self, shard: Shard) -> bytes:
        path = self.folder / shard.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path}: shard cannot be read ({error.strerror}); "
                "write the dataset anew with `tandem ingest --force`"
            ) from None
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise InputError(
                f"{path}: shard was altered since it was ingested (its SHA-256 differs from the "
                "manifest's); write the dataset anew with `tandem ingest --force`"
            )
        return content
