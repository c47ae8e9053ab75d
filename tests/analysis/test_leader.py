"""The leader against the others: how often it is wrongly told apart, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from analysis.leader import Leader, leader_of, verdict
from analysis.ranking import RankedConfiguration, ranked
from analysis.stats import power
from tests.analysis.ledgers import ending
from tests.analysis.test_ranking import ended, state_of


def ranking(scores: dict[str, dict[int, float]]) -> list[RankedConfiguration]:
    return ranked(
        state_of(
            *(
                ended(config_id, seed, ending(score=score))
                for config_id, values in scores.items()
                for seed, score in values.items()
            )
        )
    )


def lead(scores: dict[str, dict[int, float]]) -> Leader:
    found = leader_of(ranking(scores))
    assert found is not None
    return found


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("offset", [0, 1])
def test_the_best_of_equals_is_told_apart_from_any_other_no_more_than_one_time_in_twenty(
    seeds: int, offset: int
) -> None:
    """Of eight, paired and (with seeds of each one's own) by Welch: though it leads because it did best."""
    random = np.random.default_rng(seeds + offset)
    (any_row,) = ranking({"a": {0: 0.5}})
    rounds, wrong = 1000, 0
    for values in random.normal(0.7, 0.01, (rounds, 8, seeds)):
        rows = [
            replace(
                any_row,
                config_id=f"c{at}",
                runs=seeds,
                mean=each.mean(),
                std=each.std(ddof=1),
                by_seed={seed + 100 * at * offset: float(value) for seed, value in enumerate(each)},
            )
            for at, each in enumerate(values[values.mean(axis=1).argsort()[::-1]])
        ]
        found = leader_of(rows)
        assert found is not None
        wrong += found.told_apart > 0
    assert wrong / rounds <= 0.05 + 2.5 * (0.05 * 0.95 / rounds) ** 0.5


def test_a_clear_leader_is_told_apart_from_all() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(0, 0.05, 5)
    scores = {
        name: dict(enumerate(mean + shared + random.normal(0, 0.001, 5)))
        for name, mean in (("good", 0.8), ("fair", 0.7), ("poor", 0.6))
    }
    found = lead(scores)
    assert found.row.config_id == "good"
    assert found.told_apart == 2
    assert verdict(found).startswith("#1 (good) leads by 0.1")
    assert "over #2 (fair): settled (p " in verdict(found)
    assert verdict(found).endswith("of 3 comparisons); told apart from 2 of 2 others")


def test_seeds_that_one_has_and_the_other_lacks_make_it_two_means() -> None:
    one, other = {0: 0.8, 1: 0.9, 2: 0.85}, {0: 0.7, 1: 0.75, 3: 0.6}
    behind = lead({"a": one, "b": other}).behind["b"]
    expected = scipy.stats.ttest_ind(list(one.values()), list(other.values()), equal_var=False)
    assert behind.paired == 0
    assert behind.p == pytest.approx(expected.pvalue)
    more = lead({"a": one, "b": {0: 0.7, 1: 0.75, 2: 0.6, 3: 0.1}}).behind["b"]
    assert more.paired == 3
    assert more.p == pytest.approx(scipy.stats.ttest_rel([0.8, 0.9, 0.85], [0.7, 0.75, 0.6]).pvalue)


def test_the_number_of_seeds_that_is_named_has_the_power_that_is_promised() -> None:
    one, other = {0: 0.80, 1: 0.81, 2: 0.83}, {0: 0.80, 1: 0.80, 2: 0.79}
    text = verdict(lead({"a": one, "b": other}))
    assert text.startswith(
        "#1 (a) leads by 0.0167 ± 0.0517 over #2 (b): not settled (p 0.300 of 1 comparison)"
    )
    seeds = int(text.split("; about ")[1].split()[0])
    difference = np.array(list(one.values())) - list(other.values())
    spread = [float(difference.std(ddof=1))]
    assert power(seeds, difference.mean(), spread) >= 0.8 > power(seeds - 1, difference.mean(), spread)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"a": {0: 0.5}}, "#1 (a) is the only configuration that has a value and may be called the best"),
        ({"a": {0: 0.5}, "b": {0: 0.4}}, "#1 (a) is first with a single run, which has no interval"),
        (
            {"a": {0: 0.5}, "b": {0: 0.4, 1: 0.3}},
            "#1 (b) leads those with several runs; #2 (a) is 0.1500 above it with a single run: not settled",
        ),
        ({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.4}}, "leads by 0.1500 over #2 (b), which has a single run: not"),
        (
            {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.25, 1: 0.35}},
            "leads by 0.2500 ± 0.0000 over #2 (b): not settled, for",
        ),
        (
            {"a": {0: 0.50, 1: 0.52, 2: 0.70, 3: 0.70}, "b": {0: 0.54, 1: 0.57}},
            "#1 (a) is first, but on the 2 seeds that both have #2 (b) is 0.0450 ± 0.0635 above it: not",
        ),
        ({"a": {0: 0.5, 1: 0.6}, "b": {0: 0.6, 1: 0.5}}, "no number of seeds in reach would settle it"),
    ],
)
def test_what_cannot_be_told_is_said(scores: dict[str, dict[int, float]], said: str) -> None:
    assert said in verdict(lead(scores))


def test_the_smallest_leads_where_that_is_the_best() -> None:
    state = state_of(
        *(
            ended(name, seed, ending(score=value + seed * step))
            for name, value, step in (("low", 0.1, 0.01), ("high", 0.5, 0.02))
            for seed in range(3)
        )
    )
    found = leader_of(ranked(state, lowest_first=True), lowest_first=True)
    assert found is not None
    assert found.row.config_id == "low"
    difference = found.behind["high"].difference
    assert difference is not None
    assert difference.value == pytest.approx(0.41)


def test_nothing_leads_where_nothing_has_a_value() -> None:
    assert leader_of(ranked(state_of(ended("a", 0, ending(score=None))))) is None
