import pytest

from pipelines.step_parts import step_parts

CELL = {"step_seconds": 0.030, "data_wait_seconds": 0.4}
ANATOMY = {
    "lone_step_seconds": 0.021,
    "lone_data_wait_seconds": 0.003,
    "compute_step_seconds": 0.012,
}


def test_a_step_is_split_into_what_its_variants_lack() -> None:
    parts = step_parts(CELL, ANATOMY, timed_steps=100)

    assert parts.compute_seconds == 0.012
    assert parts.host_seconds == pytest.approx(0.021 - 0.003 - 0.012)
    assert parts.input_seconds == pytest.approx(0.004)
    assert parts.communication_seconds == pytest.approx(0.030 - 0.004 - 0.018)


def test_the_parts_add_up_to_the_step_even_where_one_is_negative() -> None:
    parts = step_parts({**CELL, "step_seconds": 0.020}, ANATOMY, timed_steps=100)

    assert parts.communication_seconds < 0
    assert sum(parts.__dict__.values()) == pytest.approx(0.020)


def test_a_wait_that_nobody_saw_is_no_part_and_in_none_of_the_sums() -> None:
    cell = {"step_seconds": 0.030}
    anatomy = {"lone_step_seconds": 0.021, "compute_step_seconds": 0.012}

    parts = step_parts(cell, anatomy, timed_steps=100)

    assert parts.input_seconds is None
    assert parts.host_seconds == pytest.approx(0.009)
    assert parts.communication_seconds == pytest.approx(0.009)
