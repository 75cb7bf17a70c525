from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.splits import position, split_of

SHARES = {"train": 0.8, "eval": 0.2}
IDS = st.lists(st.text(max_size=20), unique=True, max_size=50)


def split(example_ids: list[str]) -> dict[str, str]:
    return {example_id: split_of(position(example_id), SHARES) for example_id in example_ids}


def test_positions_of_known_ids_never_change() -> None:
    # As `printf %s digits-0000 | sha256sum` begins; 53 of these 64 bits fit a float.
    assert position("digits-0000") == (0x2BF9E307CB732A56 >> 11) / 2**53
    assert position("") == (0xE3B0C44298FC1C14 >> 11) / 2**53


@given(st.text())
@settings(deadline=None)
def test_a_position_lies_in_the_unit_interval(example_id: str) -> None:
    assert 0 <= position(example_id) < 1


@given(IDS, IDS)
@settings(deadline=None)
def test_an_example_never_changes_sides_when_rows_are_added_or_reordered(
    before: list[str], added: list[str]
) -> None:
    after = split([*reversed(added), *reversed(before)])

    assert {example_id: after[example_id] for example_id in before} == split(before)


def test_shares_come_out_as_asked_for() -> None:
    sides = list(split([f"example-{number}" for number in range(20_000)]).values())

    # Four standard deviations of a binomial share at 20,000 draws are 0.0113.
    assert abs(sides.count("train") / 20_000 - 0.8) < 0.0113
    assert sides.count("train") + sides.count("eval") == 20_000


@given(st.floats(0, 1, exclude_max=True), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_shares_are_laid_end_to_end(at: float, share: float) -> None:
    shares = {"train": share, "eval": 1 - share}

    assert split_of(at, shares) == ("train" if at < share else "eval")


def test_a_sum_just_under_one_leaves_no_example_without_a_split() -> None:
    almost_one = 1 - 2**-53

    assert split_of(almost_one, {"train": 0.7, "eval": 0.29999}) == "eval"
