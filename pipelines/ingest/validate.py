"""Validation: do the rows of a dataset keep the contract in its manifest?

The contract is the schema that the user gave, or the one inferred at ingestion. Ingestion checks
it once, from the statistics it takes anyway; the PyTorch DAG checks the stored rows again, as
TFX's StatisticsGen and ExampleValidator do on the other side, by the schema that
``pipelines.ingest.tf_metadata`` makes of the contract.
"""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pipelines.ingest.dataset import Dataset
from pipelines.ingest.manifest import Split
from pipelines.ingest.schema import Feature, Schema
from pipelines.ingest.sources.base import ID, arrow_type
from pipelines.ingest.statistics import MAX_VALUES, ColumnStatistics, column_statistics, merge

__all__ = ["check_columns", "check_statistics", "find_anomalies", "infer_schema"]

Statistics = Mapping[Split, Mapping[str, ColumnStatistics]]


def infer_schema(
    features: Sequence[Feature], label: str | None, statistics: Statistics
) -> tuple[Feature, ...]:
    """The columns with the contract that all of the data keeps.

    Columns without a missing value may have none; strings, and the label, keep to the values
    that were seen, if those are few. What the source says of its columns stays.
    """
    return tuple(_inferred(feature, label, statistics) for feature in features)


def check_columns(found: Sequence[Feature], expected: Schema) -> list[str]:
    """One line per expected column that is not there, or is there as something else."""
    columns = {feature.name: feature for feature in found}
    anomalies = []
    for feature in expected.features:
        there = columns.get(feature.name)
        if there is None:
            anomalies.append(
                f"{feature.name}: the column is missing; there are {', '.join(columns)}"
            )
        elif there.kind != feature.kind:
            anomalies.append(f"{feature.name}: holds {there.kind}, the schema says {feature.kind}")
    return anomalies


def check_statistics(
    features: Sequence[Feature],
    label: str | None,
    max_label_drift: float | None,
    statistics: Statistics,
) -> list[str]:
    """One line per broken rule, naming split, column and count; empty if there are none."""
    anomalies = [
        f"{split}: {feature.name}: {anomaly}"
        for split, columns in statistics.items()
        for feature in features
        if feature.name in columns
        for anomaly in _broken_rules(feature, columns[feature.name])
    ]
    if label is not None and max_label_drift is not None:
        anomalies += _drift(label, max_label_drift, statistics)
    return anomalies


def find_anomalies(dataset: Dataset) -> list[str]:
    """Read a dataset's rows: one line per anomaly, naming split, column and count.

    What its manifest records, since ``validation: warn`` accepted it, is not found again.

    Raises:
        InputError: naming the first shard that is missing or altered.
    """
    manifest = dataset.manifest
    anomalies: list[str] = []
    statistics: dict[Split, dict[str, ColumnStatistics]] = {}
    for split in manifest.split_shares:
        parts: dict[str, list[ColumnStatistics]] = {}
        stored: dict[str, None] = {}
        for table in dataset.tables(split):
            stored |= dict.fromkeys(_storage_anomalies(table, manifest.features))
            for feature in manifest.features:
                if feature.name != ID and _is_stored_as(table, feature):
                    column = table.column(feature.name).combine_chunks()
                    parts.setdefault(feature.name, []).append(column_statistics(column, feature))
        anomalies += [f"{split}: {anomaly}" for anomaly in stored]
        statistics[split] = {name: merge(each) for name, each in parts.items()}
    anomalies += check_statistics(
        manifest.features, manifest.label, manifest.max_label_drift, statistics
    )
    return [anomaly for anomaly in anomalies if anomaly not in manifest.anomalies]


def _inferred(feature: Feature, label: str | None, statistics: Statistics) -> Feature:
    parts = [columns[feature.name] for columns in statistics.values() if feature.name in columns]
    if not parts:
        return feature
    seen = merge(parts)
    update: dict[str, object] = {"max_missing_share": 1.0 if seen.missing else 0.0}
    ruled = (feature.values, feature.min, feature.max) != (None, None, None)
    if seen.values and not ruled:
        if feature.dtype == "string":
            update["values"] = tuple(sorted(seen.values))
        elif feature.name == label:
            update["values"] = tuple(sorted(int(value) for value in seen.values))
    return feature.model_copy(update=update)


def _broken_rules(feature: Feature, found: ColumnStatistics) -> Iterator[str]:
    if found.not_finite:
        yield f"{found.not_finite:,} values are missing or not finite"
    if _share(found.missing, found.examples) > feature.max_missing_share:
        yield (
            f"{found.missing:,} of {found.examples:,} values are missing, more than "
            f"max_missing_share {feature.max_missing_share:g} allows"
        )
    if _share(found.unknown, found.elements) > feature.max_unknown_share:
        yield (
            f"{found.unknown:,} of {found.elements:,} values are outside {_bounds(feature)}, more "
            f"than max_unknown_share {feature.max_unknown_share:g} allows"
        )


def _share(part: int, whole: int) -> float:
    # A quotient compares exactly with a share such as 0.29; the share times 100 falls short of 29.
    return part / whole if whole else 0.0


def _bounds(feature: Feature) -> str:
    if feature.values is not None:
        return f"the {len(feature.values):,} known values"
    low = "-inf" if feature.min is None else f"{feature.min:g}"
    high = "inf" if feature.max is None else f"{feature.max:g}"
    return f"the range {low} to {high}"


def _drift(label: str, allowed: float, statistics: Statistics) -> Iterator[str]:
    splits = [columns[label] for columns in statistics.values() if label in columns]
    if len(splits) < len(statistics):
        return  # the column is missing, which is an anomaly itself
    if any(split.values is None for split in splits):
        yield (
            f"{label}: max_label_drift compares labels of at most {MAX_VALUES:,} values that are "
            "whole numbers or strings"
        )
        return
    train, held_out = (
        {value: count / split.examples for value, count in (split.values or {}).items()}
        for split in splits
    )
    apart = {
        value: abs(train.get(value, 0) - held_out.get(value, 0))
        for value in sorted({*train, *held_out})
    }
    worst = max(apart, key=lambda value: apart[value], default=None)
    if worst is not None and apart[worst] > allowed:
        yield (
            f"{label}: '{worst}' is {train.get(worst, 0):.1%} of train and "
            f"{held_out.get(worst, 0):.1%} of eval, further apart than max_label_drift "
            f"{allowed:g} allows"
        )


def _storage_anomalies(table: pa.Table, features: Sequence[Feature]) -> Iterator[str]:
    # On the table itself: what does not fit the manifest need not fit an array either.
    for feature in features:
        if feature.name not in table.column_names:
            yield f"{feature.name}: the column is missing"
        elif not _is_stored_as(table, feature):
            stored = table.schema.field(feature.name).type
            yield f"{feature.name}: holds {stored}, the manifest says {feature.kind}"
        elif feature.name == ID and table.column(ID).null_count:
            yield f"{ID}: {table.column(ID).null_count:,} values are missing"


def _is_stored_as(table: pa.Table, feature: Feature) -> bool:
    index = table.schema.get_field_index(feature.name)
    return index >= 0 and bool(table.schema.field(index).type == arrow_type(feature))
