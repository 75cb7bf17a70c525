"""``digits``: UCI optical handwritten digits, test part, as scikit-learn bundles it.

1,797 images of 8x8 pixels with values 0 to 16.
"""

from collections.abc import Iterator

import pyarrow as pa

from pipelines.data_config import DataConfig
from pipelines.ingest.schema import Feature
from pipelines.ingest.sources.base import Fragment, Skip, Source

__all__ = ["Digits"]


class Digits(Source):
    """The data that needs no file and no network."""

    features = (
        Feature(name="example_id", dtype="string"),
        Feature(name="image", dtype="float32", shape=(8, 8, 1)),
        Feature(name="label", dtype="int64"),
    )
    label = "label"
    classes = 10
    ids_are_unique = True

    def __init__(self, config: DataConfig) -> None:
        """``config`` has nothing to say here."""
        from sklearn import __version__ as version

        self.description = {
            "name": config.source,
            "from": f"scikit-learn {version}, sklearn.datasets.load_digits",
        }

    def fragments(self) -> list[Fragment]:
        """All in one."""
        return [Fragment(0, "scikit-learn's digits", ())]

    def read(self, fragment: Fragment, skip: Skip) -> Iterator[pa.Table]:
        """The images and their labels."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = digits.images.astype("float32")
        columns = [
            pa.array([f"digits-{index:04d}" for index in range(len(images))]),
            pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), images[0].size),
            pa.array(digits.target.astype("int64")),
        ]
        yield pa.table(columns, schema=self.schema)
