"""Almost stochastic order: the violation against its integral, and how often the verdict is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import almost_stochastic_order

runs = st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=5, max_size=9)


@given(runs, runs)
def test_the_violation_is_the_share_of_the_integral_where_one_is_below(
    one: list[float], other: list[float]
) -> None:
    fine = (np.arange(5 * 7 * 8 * 9 * 4) + 0.5) / (5 * 7 * 8 * 9 * 4)  # every step ends between two points
    f, g = (np.sort(side)[(fine * len(side)).astype(int)] for side in (one, other))
    squares = (f - g) ** 2
    expected = 0.5 if not squares.sum() else squares[f < g].sum() / squares.sum()
    assert almost_stochastic_order(one, other, resamples=2).violation == pytest.approx(expected, abs=1e-9)


def test_one_that_is_better_everywhere_dominates_and_is_not_dominated() -> None:
    low, high = [0.1, 0.2, 0.3, 0.4, 0.5], [0.6, 0.7, 0.8, 0.9, 1.0]
    found = almost_stochastic_order(high, low)
    assert (found.violation, found.bound, found.dominates) == (0.0, 0.0, True)
    found = almost_stochastic_order(low, high)
    assert (found.violation, found.bound, found.dominates) == (1.0, 1.0, False)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_configurations_without_an_order_seldom_come_out_as_dominant(seeds: int, spread: float) -> None:
    """Equal ones, and ones of one mean and other spread, are at ε = ½: not better at every quantile."""
    random = np.random.default_rng(seeds)
    rounds = 500
    pairs = ((random.normal(0, 1, seeds), random.normal(0, spread, seeds)) for _ in range(rounds))
    found = [almost_stochastic_order(list(one), list(other), resamples=200).dominates for one, other in pairs]
    assert sum(found) / rounds <= 0.05 + 2.5 * (0.05 * 0.95 / rounds) ** 0.5


def test_a_clear_difference_is_found() -> None:
    random = np.random.default_rng(1)
    found = [
        almost_stochastic_order(list(random.normal(3, 1, 10)), list(random.normal(0, 1, 10)), resamples=200)
        for _ in range(100)
    ]
    assert sum(each.dominates for each in found) > 95


def test_three_runs_are_too_few() -> None:
    found = almost_stochastic_order([1.0, 2.0, 3.0], [0.0] * 10)
    assert found.bound == 0
    assert not found.dominates
    with pytest.raises(ValueError, match="expected two runs or more, got 1 and 2"):
        almost_stochastic_order([1.0], [0.0, 0.5])
