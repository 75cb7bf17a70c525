import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap, ks_2samp

from pipelines.compare import build_report
from pipelines.compare.statistics import (
    interval_of_median,
    interval_of_ratio,
    median,
    range_coverage,
    resampled_medians,
    verdict,
)

# Whole numbers, so that the mean of two middle values is exact.
rates = st.lists(st.integers(1, 10**6).map(float), min_size=2, max_size=8)


def test_median_leaves_out_what_is_not_a_number():
    assert median([3.0, math.nan, 1.0, math.inf]) == 2.0
    assert median([math.nan]) is None
    assert median([]) is None


@pytest.mark.parametrize("values", [[], [5.0], [5.0, math.nan]])
def test_no_interval_is_invented_from_less_than_two_values(values):
    assert interval_of_median(values) is None
    assert interval_of_ratio(values, [1.0, 2.0]) is None
    assert interval_of_ratio([1.0, 2.0], values) is None


@given(rates)
def test_an_interval_holds_the_median_and_stays_in_the_range(values):
    low, high = interval_of_median(values)
    assert min(values) <= low <= median(values) <= high <= max(values)


def test_three_repeats_give_their_range():
    assert interval_of_median([10.0, 12.0, 11.0]) == (10.0, 12.0)


def test_many_repeats_give_less_than_their_range():
    values = [float(value) for value in range(1, 42)]
    low, high = interval_of_median(values)
    assert 10 < low < 21 < high < 32


def test_identical_values_give_an_interval_of_no_width():
    assert interval_of_median([7.0, 7.0, 7.0]) == (7.0, 7.0)
    assert interval_of_ratio([6.0, 6.0, 6.0], [3.0, 3.0, 3.0]) == (2.0, 2.0)


def test_the_same_values_always_give_the_same_interval():
    values = [float(value**2) for value in range(12)]
    assert interval_of_median(values) == interval_of_median(values)


def test_ratio_of_three_repeats_spans_the_extreme_ratios():
    assert interval_of_ratio([20.0, 22.0, 21.0], [10.0, 11.0, 10.5]) == pytest.approx(
        (20 / 11, 22 / 10)
    )


@pytest.mark.parametrize("size", [2, 3, 4, 5, 12, 25])
def test_intervals_are_those_of_resampling_value_by_value(size):
    rng = np.random.default_rng(size)
    values, others = rng.lognormal(size=size), rng.lognormal(size=size)
    drawn = bootstrap([values], np.median, method="percentile", rng=rng)
    assert ks_2samp(drawn.bootstrap_distribution, resampled_medians(values)).statistic < 0.025

    def ratio(above, below, axis):
        return np.median(above, axis=axis) / np.median(below, axis=axis)

    both = bootstrap([values, others], ratio, method="percentile", rng=rng)
    ratios = resampled_medians(values) / resampled_medians(others, 1)
    assert ks_2samp(both.bootstrap_distribution, ratios).statistic < 0.025


def test_no_ratio_over_nothing():
    assert interval_of_ratio([1.0, 2.0], [0.0, 1.0]) is None


@pytest.mark.parametrize(
    ("torch", "tf", "expected"),
    [
        ([110.0, 111.0, 112.0], [100.0, 101.0, 102.0], "torch faster"),
        ([100.0, 101.0, 102.0], [110.0, 111.0, 112.0], "tf faster"),
        ([100.0, 110.0, 120.0], [101.0, 111.0, 121.0], "no significant difference"),
        # Wholly separated, yet within what the spread makes likely by chance:
        ([104.0, 105.0, 130.0], [80.0, 100.0, 103.0], "no significant difference"),
        ([110.0, 111.0], [100.0, 101.0], "no significant difference"),
        ([110.0], [100.0], "no significant difference"),
        ([100.0, 100.0, 100.0], [100.0, 100.0, 100.0], "no significant difference"),
    ],
)
def test_verdicts(torch, tf, expected):
    assert verdict(torch, tf) == expected


def test_equal_frameworks_are_told_apart_in_at_most_one_study_of_twenty():
    rng = np.random.default_rng(7)
    studies = 300
    called = sum(
        verdict(*np.exp(rng.normal(8, 0.05, (2, 3))).tolist()) != "no significant difference"
        for _ in range(studies)
    )
    allowed = binom.ppf(0.99, studies, 0.05)
    assert called <= allowed


def test_what_few_repeats_can_tell():
    assert range_coverage(3) == 0.75
    assert range_coverage(6) > 0.95 > range_coverage(5)


def test_clearly_separated_repeats_make_a_verdict(study):
    study.repeats("tf", 2, [100, 101, 102])
    study.repeats("torch", 2, [200, 201, 202])
    (difference,) = build_report(study.runs).differences
    assert difference.ratio == pytest.approx(201 / 101)
    assert difference.interval95 == pytest.approx((200 / 102, 202 / 100))
    assert difference.verdict == "torch faster"
    assert "from chance" in difference.remark


def test_overlapping_repeats_make_none(study):
    study.repeats("tf", 2, [100, 120, 140])
    study.repeats("torch", 2, [110, 130, 150])
    report = build_report(study.runs)
    (difference,) = report.differences
    assert difference.verdict == "no significant difference"
    assert difference.interval95[0] < 1 < difference.interval95[1]
    assert report.findings[0].headline == "No significant difference"


def test_a_faster_tensorflow_is_told_by_a_ratio_above_one(study):
    study.repeats("tf", 1, [300] * 15)
    study.repeats("torch", 1, [200] * 15)
    report = build_report(study.runs)
    assert report.differences[0].ratio == pytest.approx(2 / 3)
    assert report.differences[0].verdict == "tf faster"
    assert report.differences[0].remark == ""
    assert report.findings[0].headline == "TensorFlow 1.50× as fast"


def test_one_repeat_has_no_interval_and_decides_nothing(study):
    study.cell("tf", rate=100)
    study.cell("torch", rate=900)
    report = build_report(study.runs)
    assert [cell.interval95 for cell in report.cells] == [None, None]
    (difference,) = report.differences
    assert difference.interval95 is None
    assert difference.verdict == "no significant difference"
    assert difference.remark == "1 repeat a side: too few to tell anything."
    assert any(note.startswith("A cell with 1 repeat has no interval") for note in report.notes)


def test_two_repeats_decide_nothing_however_far_apart(study):
    study.repeats("tf", 1, [100, 101])
    study.repeats("torch", 1, [900, 901])
    (difference,) = build_report(study.runs).differences
    assert difference.verdict == "no significant difference"
    assert difference.remark == "2 repeats a side: too few to tell anything."


def test_perfect_weak_scaling_is_an_efficiency_of_one(study):
    for workers in (1, 2, 4):
        study.repeats("tf", workers, [100.0 * workers] * 3)
    points = build_report(study.runs).scaling
    assert [point.speedup for point in points] == [1, 2, 4]
    assert [point.efficiency for point in points] == [1, 1, 1]
    assert [point.interval95 for point in points] == [None, (1, 1), (1, 1)]


def test_efficiency_counts_from_the_smallest_worker_count_that_finished(study):
    study.repeats("torch", 4, [300, 300, 300])
    study.repeats("torch", 2, [200, 200, 200])
    study.cell("torch", workers=1, status="FAILED", rate=None)
    base, scaled = build_report(study.runs).scaling
    assert (base.workers, base.base_workers, base.efficiency) == (2, 2, 1)
    assert (scaled.workers, scaled.base_workers) == (4, 2)
    assert scaled.speedup == pytest.approx(1.5)
    assert scaled.efficiency == pytest.approx(0.75)


def test_the_base_case_is_stated(full_study):
    notes = build_report(full_study.runs).notes
    assert any(note.startswith("The base case of scaling is 1 worker,") for note in notes)
