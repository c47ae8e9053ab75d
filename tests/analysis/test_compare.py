"""Comparison: what differs, and differences between runs that are alike in all else."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.compare import Effect, compared
from analysis.store import StoreError
from analysis.store.state import State
from tests.analysis.ledgers import ending
from tests.analysis.test_ranking import ended, state_of


def grid(scores: dict[tuple[int, float, int], float]) -> State:
    """Runs over rank, alpha and seed."""
    return state_of(
        *(
            ended(f"r{rank}a{alpha}", seed, ending(score=score), low_rank={"rank": rank, "alpha": alpha})
            for (rank, alpha, seed), score in scores.items()
        )
    )


def by_value(effects: list[Effect], field: str) -> dict[Any, Effect]:
    return {effect.value: effect for effect in effects if effect.field == field}


cells = st.tuples(st.sampled_from([2, 4, 8]), st.sampled_from([1.0, 2.0]), st.integers(0, 2))


@given(st.dictionaries(cells, st.floats(0, 1), min_size=2))
def test_differences_are_over_pairs_of_one_seed_that_are_alike_in_all_else(
    scores: dict[tuple[int, float, int], float],
) -> None:
    effects = compared(grid(scores))
    ranks = sorted({rank for rank, _, _ in scores})
    alphas = {alpha for _, alpha, _ in scores}
    found = by_value(effects, "low_rank.rank")
    if len(ranks) == 1 or any(effect.along for effect in effects):
        return  # not two fields that vary each for itself
    assert list(found) == ranks
    for rank, before in zip(ranks[1:], ranks, strict=False):
        differences = [
            scores[rank, alpha, seed] - scores[before, alpha, seed]
            for alpha in alphas
            for seed in range(3)
            if (rank, alpha, seed) in scores and (before, alpha, seed) in scores
        ]
        effect = found[rank]
        assert (effect.against, effect.pairs) == (before, len(differences))
        assert effect.difference == (pytest.approx(statistics.fmean(differences)) if differences else None)
        assert effect.better == sum(difference > 0 for difference in differences)
        own = [score for (each, _, _), score in scores.items() if each == rank]
        assert effect.mean == pytest.approx(statistics.fmean(own))
        assert effect.runs == len(own)


def test_the_fields_that_did_most_come_first() -> None:
    scores = {(rank, alpha, 0): rank / 10 + alpha / 100 for rank in (2, 4) for alpha in (1.0, 2.0)}
    effects = compared(grid(scores))
    assert [effect.field for effect in effects] == ["low_rank.rank"] * 2 + ["low_rank.alpha"] * 2
    assert [effect.difference for effect in effects] == [
        None,
        pytest.approx(0.2),
        None,
        pytest.approx(0.01),
    ]


def test_a_probe_is_alike_to_every_lora_in_all_but_its_lora() -> None:
    probe = ended("probe", 0, ending(score=0.5), low_rank=None, training={"steps": 5})
    loras = [
        ended(
            f"l{rank}{alpha}s{steps['training']['steps']}",
            0,
            ending(score=0.5 + rank / 100),
            low_rank={"rank": rank, "alpha": alpha},
            **steps,
        )
        for rank in (2, 4)
        for alpha in (1.0, 2.0)
        for steps in ({"training": {"steps": 5}}, {"training": {"steps": 9}})
        if (rank, steps["training"]["steps"]) != (4, 5)
    ]
    found = by_value(compared(state_of(probe, *loras)), "low_rank.rank")
    assert (found[2].against, found[2].pairs) == (None, 2)  # with either alpha, and as many steps
    assert found[2].difference == pytest.approx(0.02)


def test_fields_that_change_together_are_one_effect() -> None:
    runs = [
        ended("a", 0, ending(score=0.5), low_rank={"rank": 2, "alpha": 2.0}),
        ended("b", 0, ending(score=0.6), low_rank={"rank": 4, "alpha": 4.0}),
    ]
    effects = compared(state_of(*runs))
    assert [(effect.field, effect.along, effect.value) for effect in effects] == [
        ("low_rank.rank", ("low_rank.alpha",), 2),
        ("low_rank.rank", ("low_rank.alpha",), 4),
    ]
    assert effects[1].difference == pytest.approx(0.1)
    assert effects[1].pairs == 1


def test_configurations_can_be_chosen_by_the_beginnings_of_their_ids() -> None:
    state = grid({(2, 1.0, 0): 0.1, (4, 1.0, 0): 0.2, (8, 1.0, 0): 0.3})
    effects = compared(state, configurations=["r2", "r8"])
    assert [effect.value for effect in effects] == [2, 8]
    with pytest.raises(StoreError, match="got 'r', which fits 3"):
        compared(state, configurations=["r"])
    with pytest.raises(StoreError, match=r"which fits 0; known are r2a1\.0"):
        compared(state, configurations=["x"])


def test_nothing_differs_in_one_configuration() -> None:
    assert compared(grid({(2, 1.0, 0): 0.1, (2, 1.0, 1): 0.2})) == []


def test_runs_without_a_value_have_no_part_in_it() -> None:
    state = state_of(
        ended("a", 0, ending(score=0.5), low_rank={"rank": 2}),
        ended("b", 0, ending("diverged", score=0.9), low_rank={"rank": 4}),
        ended("c", 0, ending(score=0.7), low_rank={"rank": 8}),
    )
    assert [(effect.value, effect.mean) for effect in compared(state)] == [(2, 0.5), (8, 0.7)]
