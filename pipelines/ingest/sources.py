"""Sources: each reads raw data into one Arrow table with an ``example_id`` column."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from pipelines.config import DataConfig
from pipelines.ingest.manifest import Feature

__all__ = ["RawData", "read_source"]


@dataclass(frozen=True)
class RawData:
    """Rows as read from a source, before they are split and sharded."""

    table: pa.Table
    features: list[Feature]
    """The table's columns, in order; ``example_id`` first."""
    label: str
    classes: int
    description: dict[str, str]


def read_source(config: DataConfig) -> RawData:
    """Read the configured source."""
    return _READERS[config.source]()


def _read_digits() -> RawData:
    """UCI optical handwritten digits, test part, as scikit-learn bundles it.

    1,797 images of 8x8 pixels with values 0 to 16.
    """
    from sklearn import __version__ as version
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype("float32").reshape(len(digits.images), -1)
    pixels = images.shape[1]
    table = pa.table(
        {
            "example_id": [f"digits-{index:04d}" for index in range(len(images))],
            "image": pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), pixels),
            "label": pa.array(digits.target.astype("int64")),
        }
    )
    features = [
        Feature(name="example_id", dtype="string"),
        Feature(name="image", dtype="float32", shape=(*digits.images.shape[1:], 1)),
        Feature(name="label", dtype="int64"),
    ]
    description = {
        "name": "digits",
        "from": f"scikit-learn {version}, sklearn.datasets.load_digits",
    }
    return RawData(table, features, "label", len(digits.target_names), description)


_READERS: dict[str, Callable[[], RawData]] = {"digits": _read_digits}
