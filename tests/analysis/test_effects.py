"""Effects: differences paired by seeds, intervals and error rates, joint effects, what cannot be told."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.effects import Effect, Effects, effects_of, fitted
from analysis.factors import Factor, Result
from analysis.stats import holm
from analysis.store import StoreError, Writer
from analysis.store.state import State, SweepState
from tests.analysis.ledgers import ending, run_json, train
from tests.analysis.test_ranking import ended, state_of

Cells = Mapping[tuple[int, float, int], float]


def grid(scores: Cells) -> State:
    """Runs over rank, alpha and seed."""
    return state_of(
        *(
            ended(f"r{rank}a{alpha}", seed, ending(score=score), low_rank={"rank": rank, "alpha": alpha})
            for (rank, alpha, seed), score in scores.items()
        )
    )


def by_value(found: Effects, field: str) -> dict[Any, Effect]:
    return {each.value: each for axis in found.axes for each in axis if each.field == field}


def value(effect: Effect) -> float:
    assert effect.difference is not None
    return effect.difference.value


RANKS, ALPHAS, SEEDS = (2, 4, 8), (1.0, 2.0), (0, 1, 2)
EVERY = list(itertools.product(RANKS, ALPHAS, SEEDS))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=len(EVERY), max_size=len(EVERY)))
def test_a_balanced_grids_effects_are_differences_of_marginal_means(scores: list[float]) -> None:
    cells = dict(zip(EVERY, scores, strict=True))
    found = effects_of(grid(cells))
    ranks = by_value(found, "low_rank.rank")
    marginal = {rank: fmean(each for (own, _, _), each in cells.items() if own == rank) for rank in RANKS}
    for rank, before in zip(RANKS, (None, *RANKS), strict=False):
        assert ranks[rank].mean == pytest.approx(marginal[rank], abs=1e-9)
        assert (ranks[rank].runs, ranks[rank].configurations) == (6, 2)
        assert ranks[rank].against == before
        if before is not None:
            assert value(ranks[rank]) == pytest.approx(marginal[rank] - marginal[before], abs=1e-9)


def test_the_interval_is_of_the_noise_of_seeds_that_all_configurations_share() -> None:
    """By hand: what is left once each configuration's mean and each seed's are taken off."""
    generator = np.random.default_rng(0)
    shared = {0: 0.0, 1: 0.2, 2: -0.1}
    cells = {cell: 0.5 + shared[cell[2]] + float(generator.normal(0, 0.01)) for cell in EVERY}
    table = np.array([[cells[rank, alpha, seed] for seed in SEEDS] for rank in RANKS for alpha in ALPHAS])
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    error = math.sqrt((left**2).sum() / 10) * math.sqrt(2 / 6)
    found = effects_of(grid(cells))
    difference = by_value(found, "low_rank.rank")[4].difference
    assert difference is not None
    assert (difference.error, difference.freedom) == (pytest.approx(error), 10)
    assert found.replicated


def test_an_unbalanced_grids_effects_are_those_of_the_additive_model() -> None:
    """Where scores add up, no choice of the cells that were seen changes what is said of each."""
    whole = {(rank, alpha, seed): rank / 10 + alpha / 7 + seed / 13 for rank, alpha, seed in EVERY}
    seen = [(2, 1.0, 0), (2, 1.0, 1), (4, 1.0, 0), (4, 2.0, 2), (8, 2.0, 0), (8, 2.0, 1), (2, 2.0, 0)]
    found = effects_of(grid({cell: whole[cell] for cell in seen}))
    assert value(by_value(found, "low_rank.rank")[4]) == pytest.approx(0.2)
    assert value(by_value(found, "low_rank.rank")[8]) == pytest.approx(0.4)
    assert value(by_value(found, "low_rank.alpha")[2.0]) == pytest.approx(1 / 7)


def test_a_joint_effect_is_what_adding_up_leaves_out() -> None:
    generator = np.random.default_rng(1)
    cells = {
        (rank, alpha, seed): rank / 100
        + 0.1 * (rank == 8) * (alpha == 2.0)
        + float(generator.normal(0, 0.005))
        for rank, alpha, seed in EVERY
    }
    means = {pair: fmean(cells[(*pair, seed)] for seed in SEEDS) for pair in itertools.product(RANKS, ALPHAS)}
    expected = (means[8, 2.0] - means[4, 2.0]) - (means[8, 1.0] - means[4, 1.0])
    first, second = effects_of(grid(cells)).joint
    assert first.fields == ("low_rank.rank", "low_rank.alpha")
    assert first.steps == ((4, 8), (1.0, 2.0))
    assert first.difference.value == pytest.approx(expected)
    assert first.difference.low < 0.1 < first.difference.high
    assert first.p is not None
    assert first.p < 0.05
    assert second.p is not None
    assert second.p > 0.05


def test_with_one_seed_the_noise_is_what_the_effects_leave() -> None:
    generator = np.random.default_rng(2)
    cells = {
        (rank, alpha, 0): rank / 10 + float(generator.normal(0, 0.01)) for rank in RANKS for alpha in ALPHAS
    }
    found = effects_of(grid(cells))
    assert not found.replicated
    assert found.noise is not None
    assert found.noise.freedom == 2  # six runs, and a constant, two ranks' and one alpha's effects
    alone = effects_of(grid({(2, 1.0, 0): 0.1, (4, 1.0, 0): 0.2}))
    assert alone.noise is None
    difference = by_value(alone, "low_rank.rank")[4].difference
    assert difference is not None
    assert difference.value == pytest.approx(0.1)
    assert math.isnan(difference.half_width)


def changes(generator: np.random.Generator, true: list[float], seeds: int, wide: float = 1) -> Effects:
    """An ablation of true differences, with noise of every run and noise that the runs of a seed share.

    The last change's noise is so many times as wide.
    """
    shared = generator.normal(0, 0.02, seeds)
    levels = ["base", *(f"without {index}" for index in range(len(true)))]
    results = []
    for at, effect in enumerate([0.0, *true]):
        deviation = 0.01 * (wide if at == len(true) else 1)
        values = effect + shared + generator.normal(0, deviation, seeds)
        results += [
            Result(f"{at}-{seed}", levels[at], seed, {}, float(each), None, None)
            for seed, each in enumerate(values)
        ]
    of = tuple(levels.index(result.config_id) for result in results)
    return fitted("score", "ablation", [Factor("change", (), tuple(levels), of)], results, {}, True)


def test_intervals_cover_the_truth_and_error_rates_hold_at_three_seeds() -> None:
    generator = np.random.default_rng(4)
    true = [-0.05, -0.01, 0.0, 0.0, 0.0]
    covered, wrong, repeats = [], 0, 800
    for _ in range(repeats):
        found = changes(generator, true, 3).axes[0][1:]
        for each, own in zip(found, true, strict=True):
            assert each.difference is not None
            covered.append(each.difference.low <= own <= each.difference.high)
        wrong += any(each.p is not None and each.p <= 0.05 for each in found[2:])
    assert fmean(covered) == pytest.approx(0.95, abs=0.02)
    assert wrong / repeats <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / repeats)


def test_a_change_that_scatters_more_than_the_others_is_not_told_apart_by_its_noise() -> None:
    generator = np.random.default_rng(6)
    last = [changes(generator, [0.0] * 6, 3, wide=4).axes[0][-1] for _ in range(400)]
    wrong = fmean(each.p is not None and each.p <= 0.05 for each in last)
    assert fmean(each.own_spread for each in last) > 0.6
    assert wrong < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)
    alike = [changes(generator, [0.0] * 6, 3).axes[0][-1].own_spread for _ in range(100)]
    assert fmean(alike) < 0.4


def test_p_values_count_among_all_differences() -> None:
    found = changes(np.random.default_rng(5), [-0.02, -0.01, 0.0], 4).axes[0][1:]
    single = [each.difference.p for each in found if each.difference is not None]
    assert [each.p for each in found] == pytest.approx(holm([p for p in single if p is not None]))


def test_a_probe_is_alike_to_every_lora_in_all_but_its_lora() -> None:
    probe = ended("probe", 0, ending(score=0.5), low_rank=None)
    loras = [
        ended(f"l{rank}{alpha}", 0, ending(score=0.6 + rank / 100), low_rank={"rank": rank, "alpha": alpha})
        for rank in (2, 4)
        for alpha in (1.0, 2.0)
    ]
    found = effects_of(state_of(probe, *loras))
    place = by_value(found, "low_rank")
    assert list(place) == [None, "given"]
    assert place[None].mean == pytest.approx(0.5)
    assert value(place["given"]) == pytest.approx(0.13)  # of the average LoRA
    assert place["given"].trainable == 1000
    ranks = by_value(found, "low_rank.rank")
    assert list(ranks) == [2, 4]
    assert value(ranks[4]) == pytest.approx(0.02)
    assert ranks[4].mean == pytest.approx(0.64)


def test_fields_that_change_together_are_one_effect() -> None:
    runs = [
        ended("a", 0, ending(score=0.5), low_rank={"rank": 2, "alpha": 2.0}),
        ended("b", 0, ending(score=0.6), low_rank={"rank": 4, "alpha": 4.0}),
    ]
    (axis,) = effects_of(state_of(*runs)).axes
    assert [(each.field, each.along, each.value) for each in axis] == [
        ("low_rank.rank", ("low_rank.alpha",), 2),
        ("low_rank.rank", ("low_rank.alpha",), 4),
    ]
    assert value(axis[1]) == pytest.approx(0.1)


def test_what_two_fields_did_is_not_told_apart_where_the_runs_do_not() -> None:
    """Rank 8 was seen with an alpha of its own only."""
    cells = {(2, 1.0, 0): 0.1, (4, 1.0, 0): 0.2, (2, 2.0, 0): 0.15, (4, 2.0, 0): 0.25, (8, 3.0, 0): 0.9}
    found = effects_of(grid(cells))
    assert by_value(found, "low_rank.rank")[8].difference is None
    assert by_value(found, "low_rank.alpha")[3.0].difference is None
    assert value(by_value(found, "low_rank.rank")[4]) == pytest.approx(0.1)


def test_the_fields_that_did_most_come_first() -> None:
    scores = {(rank, alpha, 0): rank / 10 + alpha / 100 for rank in (2, 4) for alpha in (1.0, 2.0)}
    assert [axis[0].field for axis in effects_of(grid(scores)).axes] == ["low_rank.rank", "low_rank.alpha"]


def test_configurations_can_be_chosen_by_the_beginnings_of_their_ids() -> None:
    state = grid({(2, 1.0, 0): 0.1, (4, 1.0, 0): 0.2, (8, 1.0, 0): 0.3})
    (axis,) = effects_of(state, configurations=["r2", "r8"]).axes
    assert [each.value for each in axis] == [2, 8]
    with pytest.raises(StoreError, match="got 'r', which fits 3"):
        effects_of(state, configurations=["r"])
    with pytest.raises(StoreError, match=r"which fits 0; known are r2a1\.0"):
        effects_of(state, configurations=["x"])


def test_nothing_differs_in_one_configuration() -> None:
    assert effects_of(grid({(2, 1.0, 0): 0.1, (2, 1.0, 1): 0.2})).axes == ()


def test_runs_without_a_value_have_no_part_in_it() -> None:
    state = state_of(
        ended("a", 0, ending(score=0.5), low_rank={"rank": 2}),
        ended("b", 0, ending("diverged", score=0.9), low_rank={"rank": 4}),
        ended("c", 0, ending(score=0.7), low_rank={"rank": 8}),
    )
    (axis,) = effects_of(state).axes
    assert [(each.value, each.mean) for each in axis] == [(2, pytest.approx(0.5)), (8, pytest.approx(0.7))]


def test_a_search_is_asked_for_its_importance_instead() -> None:
    state = State({}, {"s": SweepState({"sweep": "s", "kind": "search"}, {})})
    with pytest.raises(StoreError, match="'s' is a search, whose points share too few values: `importance`"):
        effects_of(state, "s")


@pytest.fixture
def ablated(results: Path) -> Path:
    """The base over three seeds; without x it is far worse, without y the same; without z diverged once."""
    scores = {"base": 0.8, "without x": 0.7, "without y": 0.8, "without z": 0.7995}
    jitter = ((0.001, 0, -0.001), (0, 0.001, -0.001), (-0.001, 0.001, 0), (0.001, -0.001, 0))
    declaration = {"sweep": "ablation", "kind": "ablation", "axes": {"change": list(scores)}}
    with Writer(results, "driver") as writer:
        for index, (change, score) in enumerate(scores.items()):
            for seed in range(3):
                run = run_json(f"c{index}", seed, change=index)
                writer.declare(declaration, [{"run": run, "point": {"change": change}}])
                lost = (change, seed) == ("without z", 2)
                record = ending(
                    "diverged" if lost else "completed", score=score + seed / 10 + jitter[index][seed]
                )
                train(writer, run, record | {"trainable": 1000 if change != "without x" else 400})
    return results


def test_an_ablation_is_a_table_of_what_each_change_costs(ablated: Path, capsys: Any) -> None:
    assert main(["compare", str(ablated), "--sweep", "ablation"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Worse beyond chance: without x (−10.00 ± ")
    assert "Of the other 2, none is told from chance" in shown
    lines = {line.split("  ")[0]: line for line in shown.splitlines()}
    assert list(lines)[3:7] == ["base", "without x", "without z", "without y"]
    assert "−10.00 ± " in lines["without x"]
    assert " *" in lines["without x"]
    assert " *" not in lines["without y"]
    assert lines["without x"].split()[-2:] == ["600", "0"]
    assert "2 (+1 without a result)" in lines["without z"]
    assert main(["compare", str(ablated), "--sweep", "ablation", "--format", "json"]) == 0
    rows = {row["value"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["without x"]["low"] < -0.1 < rows["without x"]["high"]
    assert rows["without x"]["against"] == "base"
    assert rows["base"]["difference"] is None
