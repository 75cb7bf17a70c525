"""Writing a dataset: its shards by the Beam job, then the manifest, then one rename."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.data_config import DataConfig
from pipelines.errors import InputError
from pipelines.ingest.job import OnProgress, run_job
from pipelines.ingest.manifest import Manifest, Split, fingerprint
from pipelines.ingest.request import request_digest, source_version
from pipelines.ingest.schema import Feature, Schema, read_schema
from pipelines.ingest.shards import FragmentResult, ShardWriter, Statistics, merge_columns
from pipelines.ingest.sources import ID, Source
from pipelines.ingest.splits import hash_ids
from pipelines.ingest.staging import Staging
from pipelines.ingest.tf_metadata import SCHEMA_NAME, tf_metadata_schema
from pipelines.ingest.validate import check_columns, check_statistics, infer_schema

__all__ = ["write_dataset"]

_MOST_NAMED = 3
_MOST_LISTED = 1_000


def write_dataset(
    source: Source,
    config: DataConfig,
    folder: Path,
    *,
    replace: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Manifest | None:
    """Split, shard and publish a source under ``folder``.

    It goes on from what a killed run for the same source and settings left. If there is a dataset
    already, nothing is written and this returns None; with ``replace`` all is written anew.

    Raises:
        InputError: naming what in the source, the settings or the folder is wrong; nothing is
            left behind then.
    """
    expected = read_schema(config.expected) if config.expected else None
    request = {"request": request_digest(config), "source": source_version(config)}
    staging = Staging(folder)
    with staging.opened(request, replace=replace) as is_mine:
        if not is_mine:
            return None
        anomalies = check_columns(source.features, expected) if expected else []
        _enforce(anomalies, config)
        writer = ShardWriter(
            source=source,
            features=expected.contract(source.features) if expected else source.features,
            folder=staging.path,
            shares=_shares(config),
            rows_per_shard=config.rows_per_shard,
        )
        fragments = source.fragments()
        run_job(writer, fragments, staging, config.runner, on_progress)
        results = list(staging.results().values())
        _refuse_failures(results)
        _refuse_duplicates(staging, results, config)
        manifest, files = _manifest(
            source, config, request, results, expected, writer.features, anomalies
        )
        _enforce(manifest.anomalies, config)
        staging.publish(manifest, files)
        return manifest


def _manifest(
    source: Source,
    config: DataConfig,
    request: dict[str, str],
    results: list[FragmentResult],
    expected: Schema | None,
    contract: tuple[Feature, ...],
    anomalies: list[str],
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and the files besides the shards that it vouches for."""
    shares = _shares(config)
    statistics: Statistics = {
        split: merge_columns(
            [result.statistics[split] for result in results if split in result.statistics]
        )
        for split in shares
    }
    shards = [
        shard
        for split in shares
        for result in results
        for shard in result.shards
        if shard.split == split
    ]
    skipped = [line for result in results for line in result.skipped]
    _refuse_empty_splits(source, shares, [shard.split for shard in shards], skipped)
    _refuse_skipped(skipped, sum(shard.rows for shard in shards), config)
    features = infer_schema(contract, source.label, statistics)
    features = expected.contract(features) if expected else features
    drift = expected.max_label_drift if expected else None
    anomalies = anomalies + check_statistics(features, source.label, drift, statistics)
    tfx_schema = tf_metadata_schema(features, source.label, drift, anomalies)
    files = {**source.files, SCHEMA_NAME: tfx_schema.encode()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    label_values = source.label and statistics["train"][source.label].values
    manifest = Manifest(
        source=source.description,
        request=request["request"],
        source_version=request["source"],
        split_shares=shares,
        features=list(features),
        label=source.label,
        classes=source.classes or (len(label_values) if label_values else None),
        statistics=statistics,
        max_label_drift=drift,
        anomalies=anomalies,
        skipped=skipped[:_MOST_LISTED],
        skipped_count=len(skipped),
        files=digests,
        shards=shards,
        fingerprint=fingerprint(source.features, source.label, shares, digests, shards),
    )
    return manifest, files


def _shares(config: DataConfig) -> dict[Split, float]:
    return {"train": config.splits.train, "eval": config.splits.eval}


def _enforce(anomalies: list[str], config: DataConfig) -> None:
    if anomalies and config.validation == "strict":
        raise InputError(
            f"data: {len(anomalies)} anomal{'ies' if anomalies[1:] else 'y'}: "
            f"{_listed(anomalies, '; ')}; mend the data or {config.expected or 'data.expected'}, "
            "or record them with data.validation=warn"
        )


def _refuse_failures(results: list[FragmentResult]) -> None:
    for result in results:
        if result.error is not None:
            raise InputError(result.error)


def _refuse_empty_splits(
    source: Source, shares: dict[Split, float], filled: list[Split], skipped: list[str]
) -> None:
    for split in shares:
        if split not in filled:
            reason = f"; {len(skipped)} were skipped: {_listed(skipped, '; ')}" if skipped else ""
            raise InputError(
                f"data.splits: no example of {source.description['name']} falls in {split}{reason}"
            )


def _refuse_skipped(skipped: list[str], rows: int, config: DataConfig) -> None:
    share = len(skipped) / (rows + len(skipped))
    allowed = config.images.max_unreadable_share
    if share > allowed:
        raise InputError(
            f"data.path: {len(skipped)} of {rows + len(skipped)} examples cannot be read, more "
            f"than data.images.max_unreadable_share allows ({allowed:g}): {_listed(skipped, '; ')}"
        )


def _refuse_duplicates(staging: Staging, results: list[FragmentResult], config: DataConfig) -> None:
    suspects = set(staging.duplicates())
    if not suspects:
        return
    # Two ids may share a hash, so the ids themselves decide.
    counts: dict[str, int] = {}
    for result in results:
        for shard in result.shards:
            ids = pq.read_table(staging.path / shard.path, columns=[ID])[ID].combine_chunks()
            for name, hashed in zip(ids.to_pylist(), hash_ids(ids).tolist(), strict=True):
                if hashed in suspects:
                    counts[name] = counts.get(name, 0) + 1
    twice = sorted((name, count) for name, count in counts.items() if count > 1)
    if twice:
        column = config.id or ID
        named = [f"'{name}' {count} times" for name, count in twice]
        raise InputError(
            f"data.id: column '{column}' holds {_listed(named, ', ')}; every example needs an id "
            "of its own"
        )


def _listed(lines: list[str], separator: str) -> str:
    more = len(lines) - _MOST_NAMED
    return separator.join(lines[:_MOST_NAMED]) + (f"{separator}and {more} more" if more > 0 else "")
