import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.collectives import Link, Sample, all_reduce_seconds, fit_link

LINK = Link(latency_seconds=1e-5, seconds_per_byte=1e-9)
counts = st.integers(2, 4096)
sizes = st.floats(1, 1e12)


@pytest.mark.parametrize(
    ("algorithm", "workers", "seconds"),
    [
        ("ring", 1, 0),
        ("tree", 1, 0),
        ("ring", 2, 2e-5 + 1e-3),
        ("ring", 4, 6e-5 + 1.5e-3),
        ("tree", 2, 2e-5 + 2e-3),
        ("tree", 4, 4e-5 + 2e-3),
        ("tree", 5, 6e-5 + 2e-3),
        ("tree", 1024, 20e-5 + 2e-3),
    ],
)
def test_a_million_bytes_take_what_the_formulas_say(algorithm, workers, seconds):
    assert all_reduce_seconds(algorithm, workers, 1e6, LINK) == pytest.approx(seconds)


@given(counts, sizes)
def test_the_ring_moves_least_and_the_tree_waits_least(workers, size):
    only_bytes, only_messages = Link(0.0, 1e-9), Link(1e-5, 0.0)

    def took(algorithm, link):
        return all_reduce_seconds(algorithm, workers, size, link)

    assert took("ring", only_bytes) <= took("tree", only_bytes)
    assert took("tree", only_messages) <= took("ring", only_messages)


@given(st.floats(0, 1e-2), st.floats(1e-12, 1e-6))
def test_the_link_behind_rings_is_found_again(latency, per_byte):
    link = Link(latency, per_byte)
    samples = [
        Sample(workers, size, all_reduce_seconds("ring", workers, size, link))
        for workers in (2, 3)
        for size in (1024.0, 65536.0, 4194304.0)
    ]
    found, ratios = fit_link(samples)
    assert found.latency_seconds == pytest.approx(latency, rel=1e-6, abs=1e-13)
    assert found.seconds_per_byte == pytest.approx(per_byte, rel=1e-6)
    assert ratios == pytest.approx(np.ones(6), rel=1e-6)


def test_neither_figure_falls_below_zero():
    falling = [Sample(2, 1e3, 3e-3), Sample(2, 1e4, 2e-3), Sample(2, 1e5, 1e-3)]
    found, ratios = fit_link(falling)
    assert found.seconds_per_byte == 0
    assert found.latency_seconds > 0
    assert ratios[0] > 1 > ratios[-1]
