from pathlib import Path

import numpy as np
import pytest
import xxhash

from pipelines.config import Config, parse_config
from pipelines.ingest import Dataset, ingest
from pipelines.ingest.cache import mapped_columns
from pipelines.ingest.columns import MISSING


@pytest.fixture
def rides(tmp_path: Path) -> Dataset:
    """Every other value of some columns is missing; one column has too many values to list."""
    lines = ["fare,rooms,payment,driver,tip"]
    for n in range(1_500):
        gone = n % 2
        fare, rooms = ("", "") if gone else (n / 4, n)
        payment, driver = ("" if gone else ("cash", "card", "app")[n % 3]), f"driver-{n}"
        lines.append(f"{fare},{rooms},{payment},{driver},{n}")
    (tmp_path / "rides.csv").write_text("\n".join(lines) + "\n")
    data = {"source": "csv", "path": str(tmp_path / "rides.csv"), "label": "tip"}
    config: Config = parse_config(
        {"name": "rides", "output": str(tmp_path / "out"), "data": data}, "test"
    )
    return ingest(config)[0]


def test_a_missing_number_is_nan_and_makes_integers_floating(rides: Dataset) -> None:
    columns = mapped_columns(rides, "train")
    gone = columns["tip"] % 2 == 1

    assert [columns[name].dtype for name in ("fare", "rooms", "tip")] == [
        np.float32,
        np.float64,
        np.int64,
    ]
    np.testing.assert_array_equal(np.isnan(columns["fare"]), gone)
    np.testing.assert_array_equal(np.isnan(columns["rooms"]), gone)
    np.testing.assert_array_equal(columns["rooms"][~gone], columns["tip"][~gone])


def test_a_string_is_its_place_in_the_sorted_vocabulary(rides: Dataset) -> None:
    columns = mapped_columns(rides, "eval")
    tips = columns["tip"]
    expected = np.where(tips % 2 == 1, MISSING, np.array([2, 1, 0])[tips % 3])

    assert rides.manifest.feature("payment").values == ("app", "card", "cash")
    assert columns["payment"].dtype == np.int32
    np.testing.assert_array_equal(columns["payment"], expected)


def test_a_string_of_no_vocabulary_is_its_hash(rides: Dataset) -> None:
    columns = mapped_columns(rides, "train")
    hashes = [xxhash.xxh3_64_intdigest(f"driver-{tip}".encode()) for tip in columns["tip"]]

    assert rides.manifest.feature("driver").values is None
    assert columns["driver"].dtype == np.int64
    np.testing.assert_array_equal(columns["driver"].view(np.uint64), np.array(hashes, np.uint64))


def test_columns_in_memory_keep_strings_as_they_are(rides: Dataset) -> None:
    columns = rides.columns("eval")

    assert set(columns["payment"]) == {None, "app", "card", "cash"}
    assert columns["driver"].tolist() == [f"driver-{tip}" for tip in columns["tip"]]
