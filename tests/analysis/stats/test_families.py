"""Families of comparisons and numbers of seeds: against other definitions of the same, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import holm, power, seeds_to_settle


@given(st.lists(st.floats(0, 1), max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_what_its_step_down_rejects(p_values: list[float], alpha: float) -> None:
    rejected = set()
    for step, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        if p_values[at] * (len(p_values) - step) > alpha:
            break
        rejected.add(at)
    assert {at for at, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_adjusted_values_are_those_of_the_textbook() -> None:
    """Ordered 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, and none below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("false", [0, 3])
def test_a_family_is_wrong_about_any_of_its_own_no_more_often_than_it_says(false: int) -> None:
    """Six comparisons that share a configuration, some of them true and large."""
    random = np.random.default_rng(false)
    rounds, seeds = 4000, 5
    runs = random.normal(0, 1, (rounds, 7, seeds))
    runs[:, 1 : 1 + false] += 20
    p = scipy.stats.ttest_rel(runs[:, 1:], runs[:, :1], axis=2).pvalue
    wrong = sum(min(holm(list(row))[false:]) <= 0.05 for row in p)
    assert wrong / rounds <= 0.05 + 3 * (0.05 * 0.95 / rounds) ** 0.5
    assert wrong / rounds > 0.01


@pytest.mark.parametrize("deviations", [(0.02,), (0.01, 0.03)])
@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_power_is_how_often_the_test_finds_the_difference(seeds: int, deviations: tuple[float, ...]) -> None:
    rounds = 20_000
    random = np.random.default_rng(seeds)
    sides = [random.normal(0, deviation, (rounds, seeds)) for deviation in deviations]
    sides[0] += 0.02
    if len(sides) == 1:
        p = scipy.stats.ttest_1samp(sides[0], 0, axis=1).pvalue
    else:
        p = scipy.stats.ttest_ind(*sides, equal_var=False, axis=1).pvalue
    assert power(seeds, 0.02, deviations) == pytest.approx(
        (p <= 0.05).mean(), abs=0.012 + 0.02 * (len(sides) - 1)
    )


@pytest.mark.parametrize("seeds", [2, 3, 30])
def test_power_rises_with_the_difference_from_the_error_to_certainty(seeds: int) -> None:
    found = [power(seeds, difference, [0.01]) for difference in np.geomspace(1e-9, 10, 200)]
    assert found[0] == pytest.approx(0.05, abs=1e-6)
    assert found[-1] == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(found) > -1e-9)


def test_so_many_seeds_settle_a_difference_and_one_fewer_does_not() -> None:
    seeds = seeds_to_settle(0.01, [0.012])
    assert seeds is not None
    assert power(seeds, 0.01, [0.012]) >= 0.8 > power(seeds - 1, 0.01, [0.012])
    # n of a two-sided paired t test for an effect of one deviation at 80%: 10 (Cohen 1988, table 2.4.1)
    assert seeds_to_settle(0.01, [0.01]) == 10
    assert seeds_to_settle(-0.01, [0.01]) == 10
    assert seeds_to_settle(0.01, [0.01], level=1 - 0.05 / 10) > 10  # type: ignore[operator]
    assert seeds_to_settle(1.0, [0.01]) == 2


def test_what_no_number_of_seeds_settles_has_none() -> None:
    assert seeds_to_settle(1e-6, [0.01]) is None
    assert seeds_to_settle(0.0, [0.01]) is None
    assert seeds_to_settle(0.01, [0.0]) is None
