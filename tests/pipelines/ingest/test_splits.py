import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.splits import hash_ids, positions, split_rows

SHARES = {"train": 0.8, "eval": 0.2}
DIGITS_0000 = 0x952DA01C273EEC9C
IDS = st.lists(st.text(max_size=20), unique=True, max_size=50)


def hashes(example_ids: list[str]) -> np.ndarray:
    return hash_ids(pa.array(example_ids, pa.string()))


def split(example_ids: list[str]) -> dict[str, str]:
    return {
        example_ids[row]: name
        for name, rows in split_rows(hashes(example_ids), SHARES).items()
        for row in rows
    }


def test_hashes_of_known_ids_never_change() -> None:
    # The first is published with the algorithm; any XXH3 tool gives the second.
    assert hashes(["", "digits-0000"]).tolist() == [0x2D06800538D394C2, DIGITS_0000]


def test_a_position_is_the_first_53_bits_of_the_hash() -> None:
    extremes = np.array([0, 2**64 - 1, DIGITS_0000], np.uint64)

    assert positions(extremes).tolist() == [0, 1 - 2**-53, (DIGITS_0000 >> 11) / 2**53]


@given(IDS, IDS)
@settings(deadline=None)
def test_an_example_never_changes_sides_when_rows_are_added_or_reordered(
    before: list[str], added: list[str]
) -> None:
    after = split([*reversed(added), *reversed(before)])

    assert {example_id: after[example_id] for example_id in before} == split(before)


def test_shares_come_out_as_asked_for() -> None:
    rows = split_rows(hashes([f"example-{number}" for number in range(20_000)]), SHARES)

    # Four standard deviations of a binomial share at 20,000 draws are 0.0113.
    assert abs(len(rows["train"]) / 20_000 - 0.8) < 0.0113
    assert sorted([*rows["train"], *rows["eval"]]) == list(range(20_000))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_shares_are_laid_end_to_end_and_rows_come_in_order_of_their_hash(
    drawn: list[int], share: float
) -> None:
    hashed = np.array(drawn, np.uint64)
    rows = split_rows(hashed, {"train": share, "eval": 1 - share})
    at = positions(hashed)

    assert all(at[row] < share for row in rows["train"])
    assert all(at[row] >= share for row in rows["eval"])
    for chosen in rows.values():
        assert hashed[chosen].tolist() == sorted(hashed[chosen].tolist())


def test_a_sum_just_under_one_leaves_no_example_without_a_split() -> None:
    rows = split_rows(np.array([2**64 - 1], np.uint64), {"train": 0.7, "eval": 0.29999})

    assert rows["eval"].tolist() == [0]
