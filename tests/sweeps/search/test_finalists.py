"""Which of a search's points are its best."""

from __future__ import annotations

from analysis.store.evaluations import Evaluations
from analysis.store.records import EvaluationText
from analysis.store.state import Ending, RunState
from sweeps.search.finalists import candidates
from sweeps.search.study import Known

LENGTH = 9


def point(name: str, step: int, *scores: float) -> Known:
    """A point whose seeds all came to a step; the scores are by seed."""
    return Known({"name": name}, tuple(run(name, seed, step, score) for seed, score in enumerate(scores)))


def run(name: str, seed: int, step: int, score: float) -> RunState:
    identity = {"run_id": f"{name}-{seed}", "config_id": name, "seed": seed}
    shown = Evaluations((EvaluationText(f"{name}-{seed}", 1, step, score, 0.0, b""),))
    status = "completed" if step == LENGTH else "stopped"
    record = {"status": status, "step": step, "score": score, "metrics": {}}
    return RunState(identity, status, Ending(1, 0.0, record), 1, evaluations=shown)  # type: ignore[arg-type]


KNOWN = [point("a", 9, 0.6), point("b", 9, 0.7), point("c", 3, 0.9), point("d", 1, 0.8), point("e", 3, 0.1)]


def ordered(expected: dict[str, float]) -> str:
    return "".join(each.config_id for each in candidates(KNOWN, "score", expected))


def test_the_furthest_come_first_where_nothing_is_expected() -> None:
    assert ordered({}) == "baced"
    assert [each.config_id for each in candidates(KNOWN, "score", None)] == ["b", "a"]


def test_a_stopped_point_stands_where_it_is_expected_to_come_to() -> None:
    assert ordered({"a": -1.0, "b": 1.0, "c": 0.0, "d": 2.0, "e": -2.0}) == "dbcae"


def test_points_at_their_ends_stand_among_each_other_by_what_they_came_to() -> None:
    assert ordered({"a": 1.0, "b": -1.0, "c": 0.0, "d": -2.0, "e": -3.0}) == "bcade"


def test_a_point_of_which_nothing_is_expected_comes_last() -> None:
    assert ordered({"a": 0.0, "b": 1.0, "d": -2.0, "e": -3.0}) == "badec"


def test_the_first_seed_stands_for_a_point() -> None:
    known = point("a", 9, 0.6, 0.9)
    assert [each.run_id for each in known.first.runs] == ["a-0"]
    assert known.first is known.first
    assert KNOWN[0].first is KNOWN[0]
