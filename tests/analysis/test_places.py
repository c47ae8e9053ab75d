"""Where configurations stand among all, those included that were stopped before their ends."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.places import places
from analysis.store import Writer, read
from analysis.store.state import RunState
from tests.analysis.ledgers import ending, run_json

Curves = dict[str, dict[int, float]]


@pytest.fixture
def groups_of(results: Any) -> Any:
    """Runs of curves as the ledger has them: those that reach step 9 complete, the others are stopped."""

    def made(curves: Curves, status: dict[str, str] | None = None) -> dict[str, list[RunState]]:
        with Writer(results, "driver") as writer:
            for name, curve in curves.items():
                config_id, _, seed = name.partition("#")
                run = run_json(config_id, int(seed or 0))
                attempt = writer.begin(run).attempt
                assert attempt is not None
                for step, score in curve.items():
                    rows = [["dev", "", "score", score], ["dev", "sst", "accuracy", -score]]
                    writer.evaluation(run["run_id"], attempt, {"step": step, "score": score, "rows": rows})
                last = max(curve, default=0)
                ends = (status or {}).get(name, "completed" if last == 9 else "stopped")
                record = ending(ends, last, curve[last] if ends == "completed" else None)
                if ends == "completed":
                    record["metrics"] = {"sst.accuracy": -curve[last]}
                writer.end(run["run_id"], attempt, record, {}, b"")
        groups: dict[str, list[RunState]] = {}
        for found in read(results).runs.values():
            groups.setdefault(found.config_id, []).append(found)
        return groups

    return made


def order(places_of: dict[str, float]) -> list[str]:
    return sorted(places_of, key=lambda name: places_of[name])


def test_what_a_rung_stopped_stands_below_all_that_it_let_go_on(groups_of: Any) -> None:
    halved = {"a": {1: 0.7, 3: 0.8, 9: 0.3}, "b": {1: 0.6, 3: 0.7}, "c": {1: 0.5}, "d": {1: 0.4}}
    found = places(groups_of(halved), "score")
    assert order(found.of) == ["d", "c", "b", "a"]  # though what a ended with is less than any showed
    assert found.of == {"d": 0.0, "c": pytest.approx(1 / 3), "b": pytest.approx(2 / 3), "a": 1.0}
    assert set(found.stopped) == {"b", "c", "d"}
    assert found.unplaced == ()


def test_a_stopped_run_stands_where_it_stood_among_those_that_went_further(groups_of: Any) -> None:
    early = {"poor": {1: 0.2, 9: 0.3}, "good": {1: 0.6, 9: 0.9}, "best": {1: 0.5, 9: 0.95}}
    held = {"between": {1: 0.4}, "above": {1: 0.55}, "over": {1: 0.8}}
    found = places(groups_of(early | held), "score")
    assert order(found.of) == ["poor", "between", "good", "above", "best", "over"]


def test_diverged_runs_stand_below_all_and_failed_ones_nowhere(groups_of: Any) -> None:
    curves = {"a": {1: 0.5, 9: 0.5}, "nan": {1: 0.9}, "cut": {1: 0.1}, "bug": {1: 0.4}, "new": {}}
    found = places(groups_of(curves, {"nan": "diverged", "bug": "failed"}), "score")
    assert order(found.of) == ["nan", "cut", "a"]
    assert set(found.unplaced) == {"bug", "new"}


def test_seeds_are_one_configuration_by_their_mean_and_equals_share_a_place(groups_of: Any) -> None:
    found = places(groups_of({"a#0": {9: 0.2}, "a#1": {9: 0.8}, "b": {9: 0.6}, "c": {9: 0.6}}), "score")
    assert found.of == {"a": 0.0, "b": 0.75, "c": 0.75}


def test_of_another_metric_a_stopped_run_shows_what_its_evaluations_say_on_dev(groups_of: Any) -> None:
    groups = groups_of({"a": {1: 0.1, 9: 0.2}, "b": {1: 0.3, 9: 0.4}, "c": {1: 0.2}})
    assert order(places(groups, "sst.accuracy").of) == ["b", "c", "a"]
    assert order(places(groups, "sst.accuracy", lowest_first=True).of) == ["a", "c", "b"]


def test_before_anything_has_ended_the_furthest_are_compared(groups_of: Any) -> None:
    found = places(
        groups_of({"a": {1: 0.1, 3: 0.3}, "b": {1: 0.3, 3: 0.2}, "c": {1: 0.2}, "d": {2: 1.0}}), "score"
    )
    assert order(found.of) == ["b", "c", "a"]
    assert found.unplaced == ("d",)  # at its step no other was seen
