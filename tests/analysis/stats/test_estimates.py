"""Means and differences over seeds, against scipy's, and how often their intervals hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import Estimate, mean_over_seeds, paired_difference, pooled, welch_difference

values = st.lists(st.floats(-1, 1), min_size=2, max_size=6).filter(lambda found: np.ptp(found) > 1e-6)


@given(values)
def test_the_interval_of_a_mean_is_student_s(found: list[float]) -> None:
    low, high = scipy.stats.t.interval(0.95, len(found) - 1, np.mean(found), scipy.stats.sem(found))
    estimate = mean_over_seeds(found)
    assert estimate is not None
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))


@given(values, values)
def test_a_paired_difference_is_the_paired_t_test_over_shared_seeds(
    one: list[float], other: list[float]
) -> None:
    shared = min(len(one), len(other))
    found = paired_difference(
        dict(enumerate(one)) | {70: 9.0},
        dict(reversed(list(enumerate(other)))) | {71: -9.0},
    )
    assert found is not None
    difference = np.subtract(one[:shared], other[:shared])
    assert found.value == pytest.approx(difference.mean(), abs=1e-9)
    if np.ptp(difference) > 1e-6:
        expected = scipy.stats.ttest_rel(one[:shared], other[:shared])
        assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
        assert found.low == pytest.approx(expected.confidence_interval(0.95).low, abs=1e-9)


@given(values, values)
def test_a_difference_without_shared_seeds_is_welch_s(one: list[float], other: list[float]) -> None:
    found = welch_difference(one, other)
    assert found is not None
    expected = scipy.stats.ttest_ind(one, other, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.low == pytest.approx(expected.confidence_interval(0.95).low, rel=1e-6, abs=1e-9)


def test_one_value_has_no_interval_and_no_noise() -> None:
    assert mean_over_seeds([0.5]) is None
    assert paired_difference({0: 0.5, 1: 0.6}, {1: 0.4, 2: 0.3}) is None
    assert welch_difference([0.5], [0.1, 0.2]) is None
    assert welch_difference([0.1, 0.2], [0.5]) is None
    assert pooled([[0.5], [0.7]]) is None
    assert pooled([]) is None


def test_values_that_are_all_the_same_do_not_show_how_far_chance_moves_them() -> None:
    found = paired_difference({0: 0.5, 1: 0.25}, {0: 0.25, 1: 0.0})
    assert found == Estimate(0.25, 0.0, 1)
    assert found.p is None
    rounded = paired_difference({0: 0.8, 1: 0.6}, {0: 0.7, 1: 0.5})  # 0.1000…09 and 0.0999…98
    assert rounded is not None
    assert (rounded.half_width, rounded.p) == (0.0, None)
    flat = welch_difference([0.5, 0.5], [0.25, 0.25])
    assert flat is not None
    assert (flat.value, flat.half_width, flat.p) == (0.25, 0.0, None)


@given(values, values)
def test_a_contrast_of_two_is_the_t_test_of_equal_variances(one: list[float], other: list[float]) -> None:
    noise = pooled([one, other])
    assert noise is not None
    found = noise.contrast([one], [other])
    expected = scipy.stats.ttest_ind(one, other, equal_var=True).confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(one) - np.mean(other), abs=1e-9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


def test_a_contrast_of_groups_weighs_configurations_and_not_runs() -> None:
    one, other = [[1.0, 3.0], [4.0]], [[0.0, 0.0, 3.0]]
    noise = pooled([*one, *other])
    assert noise is not None
    assert noise.freedom == 3
    assert noise.deviation == pytest.approx(math.sqrt((2.0 + 6.0) / 3))
    found = noise.contrast(one, other)
    assert found.value == pytest.approx((2 + 4) / 2 - 1)
    error = noise.deviation * math.sqrt(1 / 4 / 2 + 1 / 4 / 1 + 1 / 3)
    assert found.half_width == pytest.approx(scipy.stats.t.ppf(0.975, 3) * error)


def test_the_least_significant_difference_is_exceeded_by_chance_one_time_in_twenty() -> None:
    """Single runs against the noise of twelve other configurations with three seeds each."""
    random = np.random.default_rng(0)
    exceeded = 0
    for _ in range(1000):
        noise = pooled(random.normal(0, 0.1, (12, 3)).tolist())
        assert noise is not None
        one, other = random.normal(0, 0.1, 2)
        exceeded += abs(one - other) > noise.between_runs()
    assert exceeded == pytest.approx(50, abs=4 * math.sqrt(1000 * 0.05 * 0.95))


ROUNDS = 20_000
"""A share of 95% is then off by 0.15 points: half a point is more than three of these."""


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says(seeds: int) -> None:
    found = np.random.default_rng(seeds).normal(0.7, 0.01, (ROUNDS, seeds)).tolist()
    held = sum(each is not None and each.low <= 0.7 <= each.high for each in map(mean_over_seeds, found))
    assert held / ROUNDS == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_paired_test_is_wrong_as_seldom_as_it_says(seeds: int) -> None:
    """Two equal configurations, each seed moving both by far more than what is each one's own."""
    random = np.random.default_rng(seeds)
    shared = random.normal(0.7, 0.1, (ROUNDS, 1, seeds))
    pairs = (shared + random.normal(0, 0.01, (ROUNDS, 2, seeds))).tolist()
    found = [paired_difference(dict(enumerate(one)), dict(enumerate(other))) for one, other in pairs]
    wrong = sum(each is not None and each.p is not None and each.p <= 0.05 for each in found)
    assert wrong / ROUNDS == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_welch_s_test_is_wrong_no_more_often_than_it_says(seeds: int, ratio: float) -> None:
    """Within a point above, whatever the ratio of the spreads; below with three seeds of equal spread."""
    random = np.random.default_rng(seeds)
    one = random.normal(0, 1, (8000, seeds)).tolist()
    other = random.normal(0, ratio, (8000, seeds)).tolist()
    found = [welch_difference(a, b) for a, b in zip(one, other, strict=True)]
    wrong = sum(each is not None and each.p is not None and each.p <= 0.05 for each in found)
    assert 0.03 < wrong / 8000 < 0.06
