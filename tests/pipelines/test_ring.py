import pytest

from pipelines.ring import Ring, fit_ring

SIZES = [2**10, 2**13, 2**16, 2**19, 2**22]


def seconds_of(ring: Ring, workers: int, size: int) -> float:
    messages = 2 * (workers - 1)
    return messages * ring.latency_seconds + messages / workers * size * ring.seconds_per_byte


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_times_that_follow_the_formula_give_back_its_figures(workers: int) -> None:
    ring = Ring(latency_seconds=3e-4, seconds_per_byte=2e-9)

    found = fit_ring(workers, {size: seconds_of(ring, workers, size) for size in SIZES})

    assert found.latency_seconds == pytest.approx(3e-4)
    assert found.seconds_per_byte == pytest.approx(2e-9)


def test_a_share_too_much_counts_alike_at_every_size() -> None:
    ring = Ring(latency_seconds=3e-4, seconds_per_byte=2e-9)
    errors = dict(zip(SIZES, [1.1, 1.0, 1.0, 1.0, 1.1], strict=True))
    measured = {size: seconds_of(ring, 2, size) * errors[size] for size in SIZES}

    found = fit_ring(2, measured)

    assert 1.0 < found.latency_seconds / 3e-4 < 1.1
    assert 1.0 < found.seconds_per_byte / 2e-9 < 1.1


def test_no_figure_is_negative() -> None:
    found = fit_ring(2, {2**10: 1e-7, 2**16: 1e-4, 2**22: 1e-2})

    assert found.latency_seconds == 0
    assert found.seconds_per_byte > 0
