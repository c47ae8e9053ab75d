"""Interquartile mean and probability of improvement, and what their bootstrap is good for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import (
    improvement_interval,
    interquartile_interval,
    interquartile_mean,
    probability_of_improvement,
)

runs = st.lists(st.floats(-1, 1), min_size=1, max_size=6)


@given(st.lists(runs, min_size=1, max_size=4))
def test_the_interquartile_mean_is_scipy_s_trimmed_mean_of_all(strata: list[list[float]]) -> None:
    expected = scipy.stats.trim_mean(np.concatenate(strata), 0.25)
    assert interquartile_mean(strata) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(runs, runs), min_size=1, max_size=3))
def test_the_probability_of_improvement_is_mann_and_whitney_s_share(
    strata: list[tuple[list[float], list[float]]],
) -> None:
    shares = [
        scipy.stats.mannwhitneyu(one, other).statistic / (len(one) * len(other)) for one, other in strata
    ]
    one, other = zip(*strata, strict=True)
    assert probability_of_improvement(one, other) == pytest.approx(np.mean(shares), abs=1e-12)


def test_runs_are_resampled_within_their_task_alone() -> None:
    """Tasks whose runs are all alike have nothing to resample, however far apart the tasks are."""
    assert interquartile_interval([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]])[1:] == (0.5, 0.5)
    assert interquartile_interval([[0.1, 0.9]]).low == pytest.approx(0.1)
    assert improvement_interval([[1.0, 1.0], [0.0, 0.0]], [[0.0], [1.0]]) == (0.5, 0.5, 0.5)


def test_the_same_values_give_the_same_interval() -> None:
    strata = np.random.default_rng(0).normal(size=(3, 5)).tolist()
    assert interquartile_interval(strata) == interquartile_interval(strata)
    assert interquartile_interval(strata) != interquartile_interval(strata, seed=1)


def covered(tasks: int, seeds: int, rounds: int) -> float:
    random = np.random.default_rng(tasks * 100 + seeds)
    found = (
        interquartile_interval(random.normal(0, 1, (tasks, seeds)).tolist(), resamples=300)
        for _ in range(rounds)
    )
    return sum(each.low <= 0 <= each.high for each in found) / rounds


def test_the_interquartile_interval_holds_with_many_runs_and_not_with_three() -> None:
    """Why it is no default."""
    assert covered(tasks=3, seeds=30, rounds=400) == pytest.approx(0.95, abs=0.035)
    assert covered(tasks=1, seeds=3, rounds=400) < 0.85


def test_the_interval_of_an_improvement_holds_with_many_runs() -> None:
    random = np.random.default_rng(0)
    true = scipy.stats.norm.cdf(1 / 2**0.5)
    rounds = 400
    held = 0
    for _ in range(rounds):
        one, other = random.normal(1, 1, (1, 40)).tolist(), random.normal(0, 1, (1, 40)).tolist()
        found = improvement_interval(one, other, resamples=200)
        held += found.low <= true <= found.high
    assert held / rounds == pytest.approx(0.95, abs=0.035)
