"""Noise: intervals, pooling and contrasts, against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.noise import half_width, pooled, t_quantile

values = st.lists(st.floats(-1, 1), min_size=2, max_size=6).filter(lambda found: np.ptp(found) > 1e-6)


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9999])
def test_quantiles_of_student_s_t(probability: float, freedom: int) -> None:
    expected = scipy.stats.t.ppf(probability, freedom)
    assert t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-9)


@given(values)
def test_the_interval_of_a_mean_is_student_s(found: list[float]) -> None:
    low, high = scipy.stats.t.interval(0.95, len(found) - 1, np.mean(found), scipy.stats.sem(found))
    assert half_width(found) == pytest.approx((high - low) / 2, rel=1e-6)


def test_one_value_has_no_interval_and_no_noise() -> None:
    assert half_width([0.5]) is None
    assert pooled([[0.5], [0.7]]) is None
    assert pooled([]) is None


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
