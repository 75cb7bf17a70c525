"""A fragment's examples as Parquet shards: split, written, hashed, and their statistics taken."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ingest.manifest import Shard, Split
from pipelines.ingest.schema import Feature, Record
from pipelines.ingest.sources import ID, Fragment, Source
from pipelines.ingest.splits import hash_ids, split_rows
from pipelines.ingest.statistics import ColumnStatistics, column_statistics, merge
from pipelines.whole_file import write_whole

__all__ = ["FragmentResult", "ShardWriter", "content_digest"]

Hashes = npt.NDArray[np.uint64]
Statistics = dict[Split, dict[str, ColumnStatistics]]


class FragmentResult(Record):
    """What became of a fragment."""

    number: int
    shards: list[Shard] = []
    statistics: Statistics = {}
    skipped: list[str] = []
    error: str | None = None
    """Why the fragment could not be ingested."""


@dataclass(frozen=True)
class ShardWriter:
    """Writes fragments below a folder; travels to the workers."""

    source: Source
    features: tuple[Feature, ...]
    """The source's columns with the contract that they are held to."""
    folder: Path
    shares: Mapping[Split, float]
    rows_per_shard: int

    def write(self, fragment: Fragment) -> tuple[FragmentResult, list[Hashes]]:
        """Write the fragment's shards; also returns the hashes of its ids, if they may clash.

        Raises:
            InputError: if the source cannot be read.
            OSError: if the shards cannot be written.
        """
        skipped: list[str] = []
        shards: list[Shard] = []
        hashes: list[Hashes] = []
        parts: dict[Split, list[dict[str, ColumnStatistics]]] = {split: [] for split in self.shares}
        written = dict.fromkeys(self.shares, 0)
        for piece in self.source.read(fragment, skipped.append):
            table = piece.combine_chunks()
            if not table.num_rows:
                continue
            hashed = hash_ids(table.column(ID).chunk(0))
            if not self.source.ids_are_unique:
                hashes.append(hashed)
            for split, rows in split_rows(hashed, self.shares).items():
                for start in range(0, len(rows), self.rows_per_shard):
                    chosen = table.take(pa.array(rows[start : start + self.rows_per_shard]))
                    name = f"part-{fragment.number:05d}-{written[split]:03d}.parquet"
                    written[split] += 1
                    shards.append(self._write_shard(chosen, split, name))
                    parts[split].append(self._statistics(chosen))
        result = FragmentResult(
            number=fragment.number,
            shards=sorted(shards, key=lambda shard: shard.path),
            statistics={split: merge_columns(each) for split, each in parts.items() if each},
            skipped=skipped,
        )
        return result, hashes

    def read_hashes(self, result: FragmentResult) -> list[Hashes]:
        """The same hashes as ``write`` returned, from the shards that it wrote."""
        if self.source.ids_are_unique:
            return []
        return [
            hash_ids(pq.read_table(self.folder / shard.path, columns=[ID])[ID].combine_chunks())
            for shard in result.shards
        ]

    def _write_shard(self, rows: pa.Table, split: Split, name: str) -> Shard:
        encoded = pa.BufferOutputStream()
        # Dictionaries of floats and of ids cost time and are then thrown away.
        repeated = [
            feature.name
            for feature in self.features
            if feature.dtype != "float32" and feature.name != ID and not feature.shape
        ]
        pq.write_table(rows, encoded, compression="zstd", use_dictionary=repeated)
        content = encoded.getvalue()
        path = f"split={split}/{name}"
        write_whole(self.folder / path, content)
        return Shard(
            path=path,
            split=split,
            rows=rows.num_rows,
            sha256=hashlib.sha256(content).hexdigest(),
            content_sha256=content_digest(rows),
        )

    def _statistics(self, rows: pa.Table) -> dict[str, ColumnStatistics]:
        return {
            feature.name: column_statistics(rows.column(feature.name).combine_chunks(), feature)
            for feature in self.features
            if feature.name != ID
        }


def merge_columns(
    parts: Sequence[Mapping[str, ColumnStatistics]],
) -> dict[str, ColumnStatistics]:
    """Each column's statistics over all parts, in their order."""
    return {name: merge([part[name] for part in parts]) for name in parts[0]} if parts else {}


def content_digest(rows: pa.Table) -> str:
    """SHA-256 over names, types and values, column by column.

    It is the same for equal rows however they are chunked or encoded: what lies under a missing
    value does not count.
    """
    digest = hashlib.sha256()
    for field, column in zip(rows.schema, rows.columns, strict=True):
        digest.update(f"{field.name}:{field.type}:{len(column)}\n".encode())
        for part in _content(pa.chunked_array(column).combine_chunks()):
            digest.update(part)
    return digest.hexdigest()


def _content(array: pa.Array) -> Iterator[memoryview]:
    if pa.types.is_fixed_size_list(array.type):
        array = array.flatten()
    if array.null_count:
        yield np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).data
    if not pa.types.is_string(array.type):
        filled = array.fill_null(0) if array.null_count else array
        yield np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).view(np.uint8).data
        return
    filled = array.fill_null("") if array.null_count else array
    yield pc.binary_length(filled).to_numpy(zero_copy_only=False).view(np.uint8).data
    together = pa.LargeListArray.from_arrays([0, len(filled)], filled)
    yield memoryview(pc.binary_join(together, "")[0].as_buffer())
