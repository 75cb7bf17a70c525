"""Which columns of a dataset the ``tabular`` workload reads, and as what."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.errors import InputError
from pipelines.ingest.columns import MISSING
from pipelines.ingest.manifest import Manifest
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import ID
from pipelines.ingest.statistics import ColumnStatistics
from pipelines.workload_config import LabelRule, TabularWorkloadConfig

__all__ = ["Category", "check_label", "choose_categories", "choose_numeric", "misses_any"]

_SECTION = "workload.tabular"


@dataclass(frozen=True)
class Category:
    """A column that is embedded; row 0 of its embedding stands for missing and unknown values."""

    column: str
    is_text: bool
    vocabulary: tuple[str, ...] | None
    """The texts that rows 1, 2, ... stand for; None: values share rows by their remainder."""
    values: int
    """How many rows there are for values."""

    @property
    def rows(self) -> int:
        """Rows of the embedding."""
        return 1 + self.values

    @property
    def layer(self) -> str:
        """The embedding's name: the column's, in letters, digits and underscores."""
        return "embedding_" + re.sub(r"[^A-Za-z0-9_]", "_", self.column)

    def codes(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        """Rows of the embedding, of a column as the dataset's cache encodes it: (batch,)."""
        if self.vocabulary is not None:
            return values.astype(np.int64) + 1
        if self.is_text:
            missing = values == MISSING
        else:
            missing = ~np.isfinite(values)
            values = np.where(missing, 0, values)
        return np.where(missing, 0, values.astype(np.int64) % self.values + 1)


def choose_numeric(config: TabularWorkloadConfig, manifest: Manifest) -> tuple[str, ...]:
    """The columns taken as numbers, in the dataset's order.

    Raises:
        InputError: naming the column that is listed but is no number, or has no values.
    """
    _check_lists(config, manifest)
    wanted = config.numeric
    if wanted is None:
        categorical = config.categorical or []
        numbers = (feature for feature in _candidates(config, manifest) if not _is_text(feature))
        wanted = [feature.name for feature in numbers if feature.name not in categorical]
    for name in wanted:
        feature = manifest.feature(name)
        if _is_text(feature) or feature.shape:
            raise InputError(
                f"{_SECTION}.numeric: column '{name}' holds {feature.kind}, which is no number; "
                f"list it under {_SECTION}.{'categorical' if _is_text(feature) else 'ignored'}"
            )
        if manifest.statistics["train"][name].mean is None:
            raise InputError(
                f"{_SECTION}.numeric: column '{name}' has no value in the train split; "
                f"list it under {_SECTION}.ignored"
            )
    return _in_order(wanted, manifest)


def choose_categories(
    config: TabularWorkloadConfig, manifest: Manifest, hash_buckets: int
) -> tuple[Category, ...]:
    """The columns that are embedded, in the dataset's order.

    A text column with a vocabulary has a row per text. Other texts are hashed to ``hash_buckets``
    rows. Whole numbers are taken modulo ``hash_buckets``; if they are none of them negative and
    all less than that, there are only rows for numbers up to the greatest.

    Raises:
        InputError: naming the column that is listed but cannot be embedded.
    """
    _check_lists(config, manifest)
    wanted = config.categorical
    if wanted is None:
        wanted = [feature.name for feature in _candidates(config, manifest) if _is_text(feature)]
    categories = []
    for name in _in_order(wanted, manifest):
        feature = manifest.feature(name)
        if feature.dtype == "float32" or feature.shape:
            raise InputError(
                f"{_SECTION}.categorical: column '{name}' holds {feature.kind}; only strings and "
                f"whole numbers can be embedded: list it under {_SECTION}."
                f"{'ignored' if feature.shape else 'numeric'}"
            )
        categories.append(_category(feature, manifest, hash_buckets))
    for layer, count in Counter(category.layer for category in categories).items():
        if count > 1:
            alike = [category.column for category in categories if category.layer == layer]
            raise InputError(
                f"{_SECTION}.categorical: columns {' and '.join(map(repr, alike))} would both be "
                f"embedded by a layer '{layer}'; rename one of them"
            )
    return tuple(categories)


def check_label(rule: LabelRule | None, manifest: Manifest) -> str:
    """The label's column.

    Raises:
        InputError: naming the column, if it holds anything but 0 and 1 and no rule makes them.
    """
    if manifest.label is None:
        raise InputError("data.label: tabular predicts a column; name it, and ingest again")
    label = manifest.feature(manifest.label)
    if rule is not None:
        _check_rule(rule, label, manifest)
        return label.name
    if _is_text(label) or label.shape or not _is_binary(label.name, manifest):
        raise InputError(
            f"data.label: '{label.name}' holds {_found(label, manifest)}; tabular predicts a "
            f"column of 0 and 1, both in every split: name another, or set {_SECTION}.positive_over"
        )
    return label.name


def misses_any(column: str, manifest: Manifest) -> bool:
    """Whether a value of the column is missing, or not finite, in either split."""
    return any(
        columns[column].missing or columns[column].not_finite
        for columns in manifest.statistics.values()
    )


def _category(feature: Feature, manifest: Manifest, hash_buckets: int) -> Category:
    if _is_text(feature):
        known = feature.values
        vocabulary = None if known is None else tuple(map(str, known))
        values = hash_buckets if vocabulary is None else len(vocabulary)
        return Category(feature.name, True, vocabulary, values)
    found = [columns[feature.name] for columns in manifest.statistics.values()]
    least = min((part.min for part in found if part.min is not None), default=-1)
    greatest = max((part.max for part in found if part.max is not None), default=0)
    values = min(hash_buckets, int(greatest) + 1) if least >= 0 else hash_buckets
    return Category(feature.name, False, None, values)


def _candidates(config: TabularWorkloadConfig, manifest: Manifest) -> Iterable[Feature]:
    left_out = {ID, manifest.label, *config.ignored}
    return (feature for feature in manifest.features if feature.name not in left_out)


def _check_lists(config: TabularWorkloadConfig, manifest: Manifest) -> None:
    """Refuse lists with columns that there are not, that cannot be features, or that clash."""
    known = [feature.name for feature in manifest.features if feature.name != ID]
    lists: dict[str, Sequence[str]] = {
        "numeric": config.numeric or [],
        "categorical": config.categorical or [],
        "ignored": config.ignored,
    }
    places: dict[str, str] = {}
    for field, names in lists.items():
        for name in names:
            if name not in known:
                raise InputError(
                    f"{_SECTION}.{field}: no column '{name}'; the dataset has: {', '.join(known)}"
                )
            if name == manifest.label:
                raise InputError(
                    f"{_SECTION}.{field}: '{name}' is the label, which is no feature; leave it out"
                )
            if name in places:
                where = "twice" if places[name] == field else f"under {places[name]} too"
                raise InputError(
                    f"{_SECTION}.{field}: column '{name}' is listed {where}; once will do"
                )
            places[name] = field


def _check_rule(rule: LabelRule, label: Feature, manifest: Manifest) -> None:
    names = [feature.name for feature in manifest.features]
    if rule.column not in names or rule.column == label.name:
        problem = "is the label itself" if rule.column in names else "is no column of the dataset"
        raise InputError(
            f"{_SECTION}.positive_over.column: '{rule.column}' {problem}; name a number among: "
            f"{', '.join(name for name in names if name not in (ID, label.name))}"
        )
    for field, feature in (
        ("data.label", label),
        (f"{_SECTION}.positive_over.column", manifest.feature(rule.column)),
    ):
        if _is_text(feature) or feature.shape:
            raise InputError(
                f"{field}: '{feature.name}' holds {feature.kind}; {_SECTION}.positive_over "
                "compares two numbers: name another column"
            )


def _is_binary(label: str, manifest: Manifest) -> bool:
    """Whether the column holds 0 and 1 in every split, and nothing else."""
    return all(_is_binary_in(columns[label]) for columns in manifest.statistics.values())


def _is_binary_in(found: ColumnStatistics) -> bool:
    if found.mean is None or found.std is None or found.missing or found.not_finite:
        return False
    # Of all numbers from 0 to 1 with this mean, only zeros and ones vary as much.
    varies_most = abs(found.std**2 - found.mean * (1 - found.mean)) < 1e-9
    return (found.min, found.max) == (0, 1) and varies_most


def _found(label: Feature, manifest: Manifest) -> str:
    """What a column holds instead of 0 and 1, for people."""
    if _is_text(label) or label.shape:
        return label.kind
    for split, columns in manifest.statistics.items():
        seen = columns[label.name]
        if not _is_binary_in(seen):
            missing = seen.missing + seen.not_finite
            none = f", {missing:,} missing," if missing else ""
            if seen.min is None or seen.max is None:
                return f"no numbers in {split}"
            if (seen.min, seen.max) == (0, 1) and not missing:
                return f"numbers between 0 and 1 in {split}"
            return f"numbers from {seen.min:g} to {seen.max:g}{none} in {split}"
    return label.kind


def _in_order(names: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    return tuple(feature.name for feature in manifest.features if feature.name in names)


def _is_text(feature: Feature) -> bool:
    return feature.dtype == "string"
