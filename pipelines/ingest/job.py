"""The ingestion as an Apache Beam pipeline: one element per fragment, never one per row.

Fragments are independent, so the pipeline is a line: fragments, shards, and (where a source's ids
come from users) hashes of ids grouped to find duplicates. Results go through the staging folder,
which all workers share, because not every runner hands elements back.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import apache_beam as beam
import numpy as np

from pipelines.data_config import RunnerConfig
from pipelines.errors import InputError
from pipelines.ingest.runners import started_runner
from pipelines.ingest.shards import FragmentResult, Hashes, ShardWriter
from pipelines.ingest.sources import Fragment
from pipelines.ingest.staging import Staging

__all__ = ["OnProgress", "run_job"]

OnProgress = Callable[[int, int], None]
"""Called with the fragments done and the fragments in all."""

_BUCKETS = 64
_POLL_SECONDS = 0.2


def run_job(
    writer: ShardWriter,
    fragments: list[Fragment],
    staging: Staging,
    config: RunnerConfig,
    on_progress: OnProgress,
) -> None:
    """Write the shards of all fragments; what became of each is noted in the staging folder.

    Raises:
        InputError: if the runner's options are wrong, or its workers write to another disk.
    """
    with started_runner(config, len(fragments)) as (runner, options):
        pipeline = beam.Pipeline(runner=runner, options=options)
        shards = (
            pipeline
            | "Fragments" >> beam.Create(fragments, reshuffle=False)
            | "Spread" >> beam.Reshuffle()
            | "WriteShards" >> beam.ParDo(_WriteShards(writer, staging))
        )
        if not writer.source.ids_are_unique:
            (
                shards
                | "GroupIds" >> beam.GroupByKey()
                | "FindDuplicates" >> beam.ParDo(_FindDuplicates(staging))
            )
        with _reporting(staging, len(fragments), on_progress):
            pipeline.run().wait_until_finish()
        missing = len(fragments) - staging.done()
        if missing and not staging.has_failed():
            raise InputError(
                f"data.output: {staging.folder}: {missing} of {len(fragments)} fragments that the "
                f"workers of data.runner '{config.name}' wrote are not there; name a folder that "
                "all of them share"
            )


class _WriteShards(beam.DoFn):
    def __init__(self, writer: ShardWriter, staging: Staging) -> None:
        self._writer = writer
        self._staging = staging

    def process(self, fragment: Fragment) -> Iterable[tuple[int, bytes]]:
        """Write a fragment, unless it is done; returns its ids' hashes if they may clash."""
        if self._staging.has_failed():
            return []  # the whole will be refused, so the rest need not be read
        done = self._staging.result(fragment.number)
        hashes = self._write(fragment) if done is None else self._writer.read_hashes(done)
        return [keyed for piece in hashes for keyed in _bucketed(piece)]

    def _write(self, fragment: Fragment) -> list[Hashes]:
        try:
            result, hashes = self._writer.write(fragment)
        except InputError as error:
            result, hashes = FragmentResult(number=fragment.number, error=str(error)), []
            self._staging.note_failure()
        except Exception:
            # Runners stop at it in their own time; the other workers need not go on until then.
            with suppress(OSError):
                self._staging.note_failure()
            raise
        self._staging.note(result)
        return hashes


class _FindDuplicates(beam.DoFn):
    def __init__(self, staging: Staging) -> None:
        self._staging = staging

    def process(self, keyed: tuple[int, Iterable[bytes]]) -> None:
        """Note the hashes of a bucket that occur more than once."""
        bucket, pieces = keyed
        hashes = np.sort(np.concatenate([np.frombuffer(piece, np.uint64) for piece in pieces]))
        twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(twice):
            self._staging.note_duplicates(bucket, twice.tolist())


def _bucketed(hashes: Hashes) -> Iterator[tuple[int, bytes]]:
    ordered = np.sort(hashes)
    buckets = np.right_shift(ordered, np.uint64(64 - _BUCKETS.bit_length() + 1)).astype(np.int64)
    bounds = np.searchsorted(buckets, np.arange(_BUCKETS + 1))
    for bucket in range(_BUCKETS):
        piece = ordered[bounds[bucket] : bounds[bucket + 1]]
        if len(piece):
            yield bucket, piece.tobytes()


@contextmanager
def _reporting(staging: Staging, total: int, on_progress: OnProgress) -> Iterator[None]:
    """Report progress while the block runs, whatever the runner."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(_POLL_SECONDS):
            on_progress(staging.done(), total)

    poller = threading.Thread(target=poll, daemon=True)
    poller.start()
    try:
        yield
    finally:
        over.set()
        poller.join()
