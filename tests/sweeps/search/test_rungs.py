"""How far runs may go, from what they have shown, and the worker that stops them there."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from analysis.store.evaluations import Evaluations
from analysis.store.records import EvaluationText
from analysis.store.state import RunState, State
from mtbert.schema import ConfigError, build
from sweeps.plan import Aims
from sweeps.search.rungs import Rungs, targets, trust
from tests.sweeps.direct import Desk, ended, evaluated, lone

HALVING = Rungs(grace=10, reduction=3)


def state(shown: dict[str, dict[int, float | None]], **status: Any) -> State:
    runs = {}
    for name, scores in shown.items():
        texts = tuple(EvaluationText(name, 1, step, score, 0.0, b"") for step, score in scores.items())
        runs[name] = RunState({"run_id": name}, status.get(name), evaluations=Evaluations(texts))
    return State(runs)


def wanted(
    rungs: Rungs,
    shown: dict[str, dict[int, float | None]],
    length: int = 100,
    expected: dict[str, float] | None = None,
    **status: Any,
) -> Any:
    return targets(rungs, dict.fromkeys(shown, length), state(shown, **status), expected or {})


def test_rungs_grow_by_the_reduction_or_stand_at_equal_distances() -> None:
    assert HALVING.steps(100) == (10, 30, 90)
    assert HALVING.steps(90) == (10, 30)
    assert HALVING.steps(10) == ()
    assert Rungs(grace=25, rule="median").steps(100) == (25, 50, 75)


def test_of_a_rung_that_foretells_the_end_the_best_third_goes_on() -> None:
    shown: dict[str, dict[int, float | None]] = {
        f"r{at}": {10: at / 10} | ({100: at / 10} if at >= 3 else {}) for at in range(7)
    }
    assert wanted(HALVING, {"a": {}}) == {"a": 10}
    assert wanted(HALVING, {"a": {10: 0.9}, "b": {10: 0.1}}) == {"a": 30, "b": 10}
    found = wanted(HALVING, shown)
    assert {name for name, step in found.items() if step == 30} == {"r6", "r5"}
    assert {name for name, step in found.items() if step == 10} == {"r0", "r1", "r2", "r3", "r4"}


def test_a_run_passes_one_rung_after_the_other_and_then_goes_to_its_end() -> None:
    shown: dict[str, dict[int, float | None]] = {
        name: {10: 0.5, 30: 0.5 + at, 90: 0.5 + at} for at, name in enumerate(("a", "b", "c"))
    }
    shown |= {f"low{at}": {10: 0.1} for at in range(6)}
    assert {name: wanted(HALVING, shown)[name] for name in "abc"} == {"a": 30, "b": 90, "c": 100}


def test_undefined_scores_and_broken_runs_count_and_never_go_on() -> None:
    shown: dict[str, dict[int, float | None]] = {"a": {10: None}, "b": {10: 0.2}, "c": {10: 0.9}}
    assert wanted(HALVING, shown, c="diverged") == {"a": 10, "b": 30, "c": 10}
    none: dict[str, dict[int, float | None]] = {name: {10: None} for name in "abcdef"}
    assert set(wanted(HALVING, none).values()) == {10}


def test_a_rung_is_believed_as_far_as_it_has_foretold_the_end() -> None:
    there, end = (0.1, 0.2, 0.3, 0.4, 0.4, 0.9), (0.3, 0.1, 0.5, 0.2, 0.9, 0.8)
    pairs = list(zip(there, end, strict=True))
    assert trust(pairs, 0.2) == pytest.approx(spearmanr(there, end).statistic)
    assert trust([(one, -other) for one, other in pairs], 0.2) == 0
    assert trust([(0.5, other) for _, other in pairs], 0.2) == 0
    assert trust(pairs[:3], 0.2) == 0.2


@pytest.mark.parametrize(("sign", "passing"), [(1, 3), (-1, 9)])
def test_where_a_rung_says_nothing_all_go_on(sign: int, passing: int) -> None:
    shown: dict[str, dict[int, float | None]] = {
        f"r{at}": {10: at / 10} | ({100: sign * at / 10} if at >= 5 else {}) for at in range(9)
    }
    on = [name for name, step in wanted(HALVING, shown).items() if step > 10]
    assert len(on) == passing


def test_what_runs_are_expected_to_come_to_counts_before_what_they_show() -> None:
    shown: dict[str, dict[int, float | None]] = {"a": {10: 0.9}, "b": {10: 0.1}, "c": {10: 0.5}}
    assert wanted(HALVING, shown, expected={"a": -1.0, "b": 1.0, "c": 0.0}) == {"a": 10, "b": 30, "c": 30}


def test_below_the_median_a_run_stops() -> None:
    rule = Rungs(grace=50, rule="median")
    few: dict[str, dict[int, float | None]] = {"a": {50: 0.1}, "b": {50: 0.2}, "c": {50: 0.9}}
    assert set(wanted(rule, few).values()) == {100}
    found = wanted(rule, {**few, "d": {50: 0.8}})
    assert found == {"a": 50, "b": 50, "c": 100, "d": 100}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(2, 5))
def test_so_many_go_on_as_the_reduction_and_the_rung_say_and_none_is_better_than_they(
    scores: list[float], reduction: int
) -> None:
    shown: dict[str, dict[int, float | None]] = {f"{at:02}": {10: score} for at, score in enumerate(scores)}
    found = wanted(Rungs(grace=10, reduction=reduction), shown, length=20)
    on = [float(shown[name][10] or 0) for name, step in found.items() if step == 20]
    held = [float(shown[name][10] or 0) for name, step in found.items() if step == 10]
    assert len(on) == int(len(scores) / math.sqrt(reduction) + 1e-9)  # the rung is half-way
    assert not on or not held or min(on) >= max(held)


@pytest.mark.parametrize(("every", "unit"), [(None, "steps"), (30, "steps"), (1, "epochs")])
def test_rungs_need_an_evaluation_at_each(every: int | None, unit: str) -> None:
    Rungs(grace=100).check(50, "steps")
    with pytest.raises(ConfigError, match=r"evaluation.every: expected a number of steps that .* 100"):
        Rungs(grace=100).check(every, unit)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rungs\.reduction: expected a number at least 2, got 1"):
        build(Rungs, {"reduction": 1}, "rungs")


def test_a_worker_stops_a_run_at_its_rung_and_another_goes_on_from_there(desk: Desk) -> None:
    one, two = desk.ids[:2]
    pack = desk.pack(desk.begin(one, two, until={one: 1}), evaluated(one, two), evaluated(two))
    result = pack.step()
    assert [one, 1, 0.5, "stopped"] in result["runs"]
    assert pack._trainer is not None
    assert pack._trainer.members == (two,)
    run = desk.state().runs[one]
    assert (run.status, run.step, run.checkpoint_step) == ("stopped", 1, 1)
    assert pack.step()["runs"] == [[two, 2, 0.5, "running"]]
    later = desk.pack(desk.begin(one))
    later.step()
    assert desk.trainers[-1].admitted == {one: f"{one} at 1".encode()}
    assert desk.state().runs[one].status == "running"


def test_a_run_that_ends_at_its_rung_is_not_stopped(desk: Desk) -> None:
    one = desk.ids[0]
    ends = desk.begin(one, until={one: 1})
    pack = desk.pack(ends, lambda trainer: [*evaluated(one)(trainer), *ended(one)(trainer)])
    pack.step()
    assert desk.state().runs[one].status == "completed"


def test_the_searcher_says_where_a_run_stops_and_gives_it_out_again_once_it_may_go_on(
    desk: Desk,
) -> None:
    one = desk.ids[0]
    aims = [Aims({one: 1}, frozenset({one}))]
    assignments = desk.assignments(aims=lambda _: aims[0])
    assert assignments.suggest("t1") == lone(one, 1)
    pack = desk.pack([[one, 1]], evaluated(one))
    assignments.complete("t1", pack.step(), error=False)
    aims[0] = Aims({one: 4})
    assert assignments.suggest("t2") == lone(one, 2)
