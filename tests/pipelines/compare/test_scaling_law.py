import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.compare.law_model import Law
from pipelines.compare.scaling_law import fit_law

COUNTS = (1, 2, 4, 8, 16)


def throughput(workers, base, contention, coherency):
    slowed = 1 + contention * (workers - 1) + coherency * workers * (workers - 1)
    return base * workers / slowed


def exact(base, contention, coherency, counts=COUNTS, repeats=3):
    return {n: [throughput(n, base, contention, coherency)] * repeats for n in counts}


@pytest.mark.parametrize("parameters", [(1000.0, 0.05, 0.002), (0.3, 0.2, 0.0), (5e6, 0.0, 0.01)])
@pytest.mark.parametrize("counts", [COUNTS, (3, 4, 6, 12)])
def test_known_parameters_are_found_again(parameters, counts):
    law = fit_law(exact(*parameters, counts))
    found = (law.base_throughput, law.contention, law.coherency)
    assert found == pytest.approx(parameters, rel=1e-9, abs=1e-12)
    assert law.largest_residual < 1e-9
    for n in (1, 5, 100):
        assert law.throughput(n) == pytest.approx(throughput(n, *parameters), rel=1e-9)


@given(
    st.floats(1e-3, 1e9),
    st.floats(0, 0.9),
    st.floats(0, 0.5),
)
def test_the_curve_is_the_law_to_twice_the_measured_workers(base, contention, coherency):
    law = fit_law(exact(base, contention, coherency, repeats=1))
    assert law.curve[0].workers == 1
    assert law.curve[-1].workers == 32
    for point in law.curve:
        assert point.throughput == pytest.approx(law.throughput(point.workers))
        assert point.throughput == pytest.approx(
            throughput(point.workers, base, contention, coherency)
        )


def test_linear_scaling_has_neither_contention_nor_coherency_nor_a_peak():
    law = fit_law({n: [100.0 * n] * 3 for n in (1, 2, 3, 4)})
    assert law.contention == pytest.approx(0, abs=1e-12)
    assert law.coherency == pytest.approx(0, abs=1e-12)
    assert law.throughput(1000) == pytest.approx(100_000)


def test_more_than_linear_scaling_counts_as_linear():
    law = fit_law({n: [100.0 * n**1.1] * 2 for n in COUNTS})
    assert (law.contention, law.coherency) == (0, 0)
    assert law.peak_workers is None
    assert law.largest_residual > 0.05


def test_the_peak_is_where_throughput_is_greatest():
    law = fit_law(exact(1000.0, 0.05, 0.002))
    assert law.peak_workers == pytest.approx(math.sqrt(0.95 / 0.002))
    most = max(range(1, 100), key=law.throughput)
    assert abs(most - law.peak_workers) < 1


def test_workers_that_only_hinder_each_other_have_their_peak_at_one():
    law = fit_law({n: [100.0 / n] * 3 for n in COUNTS})
    assert law.contention == pytest.approx(1)
    assert law.peak_workers == 1
    assert law.peak_workers_interval95 == (1, 1)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    parameters, repeats = (1000.0, 0.05, 0.004), 3
    trials, hits = 40, np.zeros(4)
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        law = fit_law(
            {n: throughput(n, *parameters) * np.exp(rng.normal(0, 0.03, repeats)) for n in COUNTS}
        )
        (point,) = (point for point in law.curve if point.workers == 32)
        intervals = (
            law.base_throughput_interval95,
            law.contention_interval95,
            law.coherency_interval95,
            point.interval95,
        )
        truths = (*parameters, throughput(32, *parameters))
        hits += [low <= truth <= high for (low, high), truth in zip(intervals, truths, strict=True)]
    assert (hits / trials > 0.85).all(), hits
    assert hits.sum() / trials < 4, "intervals that never miss say nothing"


def test_an_open_peak_is_told_where_the_repeats_do_not_exclude_one():
    noisy = {n: [throughput(n, 1000.0, 0.1, 0.0002) * e for e in (0.9, 1, 1.1)] for n in COUNTS}
    low, high = fit_law(noisy).peak_workers_interval95
    assert 1 <= low < math.inf
    assert high is None


def test_the_same_repeats_always_give_the_same_law_in_any_order():
    rng = np.random.default_rng(3)
    samples = {n: list(throughput(n, 50.0, 0.1, 0.01) * rng.normal(1, 0.02, 4)) for n in COUNTS}
    assert fit_law(samples) == fit_law(dict(reversed(samples.items())))


@pytest.mark.parametrize(
    "samples",
    [
        {},
        {1: [5.0], 2: [9.0], 4: [15.0]},
        {1: [5.0], 2: [9.0], 4: [15.0], 8: []},
        {1: [5.0], 2: [9.0], 4: [15.0], 8: [math.nan, 0.0, -1.0, math.inf]},
    ],
)
def test_there_is_no_law_of_fewer_than_four_worker_counts(samples):
    assert fit_law(samples) is None


def test_there_is_no_law_of_throughput_that_falls_faster_than_any():
    assert fit_law({n: [100.0 / n**4] * 3 for n in (2, 4, 8, 16)}) is None


def test_one_repeat_has_a_law_but_no_interval():
    law = fit_law({1: [5.0, 5.1], 2: [9.0, 9.2], 4: [15.0], 8: [20.0, 20.4]})
    assert law.base_throughput > 0
    assert law.base_throughput_interval95 is None
    assert law.peak_workers_interval95 is None
    assert all(point.interval95 is None for point in law.curve)


def test_it_can_be_read_back_from_json():
    law = fit_law(exact(1000.0, 0.05, 0.0))
    assert Law.model_validate_json(law.model_dump_json()) == law
