"""Differences over seeds and examples: weights as what they stand for, and how often intervals hold."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from analysis.stats import Metric, TaskPredictions, crossed_difference, weighted
from analysis.stats.crossed import of_both


def task(values: np.ndarray, labels: np.ndarray, metric: Metric = "accuracy") -> TaskPredictions:
    return TaskPredictions("task", metric, np.arange(len(labels)), values, labels)


@given(st.integers(0, 10_000))
def test_a_weight_is_how_often_an_example_stands_there(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 8).astype(float)
    values = labels + random.integers(0, 2, (2, 8))
    drawn = random.integers(8, size=12)
    weights = np.bincount(drawn, minlength=8)[None].astype(float)
    accuracy = (values[:, drawn] == labels[drawn]).mean(axis=1)
    np.testing.assert_allclose(weighted(task(values, labels), weights)[0], accuracy)
    if np.ptp(labels[drawn]) and np.ptp(values[:, drawn], axis=1).all():
        r = [scipy.stats.pearsonr(row[drawn], labels[drawn]).statistic for row in values]
        np.testing.assert_allclose(weighted(task(values, labels, "pearson"), weights)[0], r, atol=1e-9)
        half = (1 + np.array(r)) / 2
        np.testing.assert_allclose(weighted(task(values, labels, "half_up"), weights)[0], half, atol=1e-9)


def test_a_difference_by_seed_is_that_of_the_means_over_tasks() -> None:
    labels = np.array([0.0, 1.0, 1.0, 2.0] * 8)
    right, half = np.tile(labels, (3, 1)), np.tile([0.0, 1.0, 0.0, 0.0] * 8, (3, 1))
    one = [task(right, labels), task(right, labels, "half_up")]
    other = [task(half, labels), task(right, labels, "half_up")]
    found = crossed_difference(one, other, resamples=20)
    np.testing.assert_allclose(found.by_seed, [0.25] * 3)
    assert found.resampled.shape == (20, 3)
    np.testing.assert_allclose(found.resampled, found.resampled[:, :1].repeat(3, axis=1))  # one draw for all


def test_what_is_not_paired_is_refused() -> None:
    labels = np.zeros(4)
    runs = [task(np.zeros((3, 4)), labels)]
    with pytest.raises(ValueError, match="the same tasks, seeds and examples"):
        crossed_difference(runs, [task(np.zeros((4, 4)), labels)])
    with pytest.raises(ValueError, match="the same tasks, seeds and examples"):
        crossed_difference(
            runs, [TaskPredictions("task", "accuracy", np.arange(1, 5), np.zeros((3, 4)), labels)]
        )
    with pytest.raises(ValueError, match="three seeds or more"):
        crossed_difference([task(np.zeros((2, 4)), labels)], [task(np.zeros((2, 4)), labels)])


def held(seeds: int, parts: tuple[float, float, float]) -> float:
    """How often the interval holds zero, the variances of the mean being a/S, b/E and c/(S·E); E is large."""
    a, b, c = parts
    random = np.random.default_rng(seeds)
    rounds = 60_000
    mean = random.normal(0, (a + b + c) ** 0.5, rounds)
    among = (a + c) * random.chisquare(seeds - 1, rounds) / (seeds - 1)
    error, freedom = of_both(among, np.full(rounds, b + c), np.full(rounds, c), seeds)
    return float((np.abs(mean) <= scipy.stats.t.ppf(0.975, freedom) * error).mean())


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("own", [0.0, 0.2, 0.5, 0.8])
def test_the_interval_holds_within_a_point_whatever_share_of_the_noise_is_whose(
    seeds: int, own: float
) -> None:
    """Own is each seed's on each example; the rest is the seeds' and the examples'."""
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0):
        assert 0.94 <= held(seeds, (share * (1 - own), (1 - share) * (1 - own), own)) <= 0.96, share


def simulated(random: np.random.Generator, seeds: int, examples: int) -> np.ndarray:
    """Whether runs of two equal configurations get examples right: [2, seeds, examples] of 0 and 1."""
    ease = random.normal(0.8, 1.0, examples)
    own_ease = random.normal(0, 0.5, (2, 1, examples))
    skill = random.normal(0, 0.25, (2, seeds, 1))
    latent = ease + own_ease + skill + random.normal(0, 0.5, (2, seeds, examples))
    return (latent > 0).astype(float)


def test_real_predictions_of_equal_configurations_are_told_apart_as_seldom_as_it_says() -> None:
    """And the plain percentile interval, with seeds resampled too, misses far more often at three seeds."""
    random = np.random.default_rng(0)
    rounds, missed, missed_by_percentile = 400, 0, 0
    for _ in range(rounds):
        one, other = simulated(random, 3, 200)
        labels = np.ones(200)
        found = crossed_difference([task(one, labels)], [task(other, labels)], resamples=200)
        low, high = found.percentile()[1:]
        missed += abs(found.estimate.value) > found.estimate.half_width
        missed_by_percentile += not low <= 0 <= high
    assert missed / rounds <= 0.05 + 2.5 * (0.05 * 0.95 / rounds) ** 0.5
    assert missed / rounds > 0.005
    assert missed_by_percentile / rounds > 0.08
