"""What the best of many is worth: against enumeration, and against known truth."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.selection import expected_best, half_and_half
from analysis.stats import TaskPredictions


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_expected_best_is_the_mean_over_all_choices_of_n_points(scores: list[float]) -> None:
    found = expected_best(scores, "random")
    assert len(found.unbiased) == len(found.plug_in) == len(scores)
    for n in range(1, len(scores) + 1):
        without = np.mean([max(some) for some in combinations(scores, n)])
        assert found.unbiased[n - 1] == pytest.approx(without, abs=1e-12)
        again = np.mean([max(some) for some in product(scores, repeat=n)])
        assert found.plug_in[n - 1] == pytest.approx(again, abs=1e-12)


def test_the_expected_best_is_right_in_the_mean_and_the_plug_in_is_too_low() -> None:
    """The best of n uniform scores is n/(n + 1) in expectation."""
    random = np.random.default_rng(0)
    found = [expected_best(list(random.uniform(size=12)), "random") for _ in range(3000)]
    unbiased = np.mean([each.unbiased for each in found], axis=0)
    n = np.arange(1, 13)
    np.testing.assert_allclose(unbiased, n / (n + 1), atol=0.008)
    assert np.mean([each.plug_in for each in found], axis=0)[-1] < 12 / 13 - 0.02


def test_many_points_neither_overflow_nor_cancel() -> None:
    found = expected_best(list(np.linspace(0, 1, 3000)), "random").unbiased
    assert found[0] == pytest.approx(0.5)
    assert found[-1] == pytest.approx(1.0)
    assert np.all(np.diff(found) >= -1e-12)


@pytest.mark.parametrize("sampler", ["kriging", "tpe", "quasi_random"])
def test_a_curve_of_a_search_that_learns_is_refused(sampler: str) -> None:
    with pytest.raises(ValueError, match=f"only for points drawn at random.*{sampler}"):
        expected_best([0.5, 0.6], sampler)


def test_points_without_an_end_are_refused() -> None:
    with pytest.raises(ValueError, match="3 points were stopped"):
        expected_best([0.5, 0.6], "random", stopped=3)
    with pytest.raises(ValueError, match="no points"):
        expected_best([], "random")


def configurations(
    random: np.random.Generator, accuracies: list[float], examples: int
) -> list[list[TaskPredictions]]:
    """Each with two runs that agree on every example, and so with no luck but that of the examples."""
    ids = np.arange(examples)
    return [
        [
            TaskPredictions(
                "t",
                "accuracy",
                ids,
                np.tile(random.uniform(size=examples) < each, (2, 1)) * 1.0,
                np.ones(examples),
            )
        ]
        for each in accuracies
    ]


def test_the_best_of_equals_is_flattered_on_all_of_dev_and_not_on_the_other_half() -> None:
    random = np.random.default_rng(0)
    found = [half_and_half(configurations(random, [0.7] * 20, 200), splits=10) for _ in range(150)]
    assert np.mean([each.on_all for each in found]) > 0.74
    assert np.mean([each.reported for each in found]) == pytest.approx(0.7, abs=0.006)
    assert np.mean([each.optimism for each in found]) > 0.04
    assert all(sum(each.chosen) == pytest.approx(1) for each in found)


def test_a_clear_winner_keeps_its_score() -> None:
    found = half_and_half(configurations(np.random.default_rng(0), [0.5, 0.9, 0.6], 400))
    assert found.winner == 1
    assert found.chosen == (0.0, 1.0, 0.0)
    assert found.reported == pytest.approx(found.on_all)  # halves used both ways
    assert found.optimism == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_chosen_among_is_refused() -> None:
    one, other = configurations(np.random.default_rng(0), [0.5, 0.6], 10)
    with pytest.raises(ValueError, match="two configurations or more, got 1"):
        half_and_half([one])
    (shorter,) = configurations(np.random.default_rng(0), [0.5], 9)
    with pytest.raises(ValueError, match="the same tasks and examples"):
        half_and_half([one, other, shorter])
