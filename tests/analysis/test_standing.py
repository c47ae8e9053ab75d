"""A run among the seeds of its configuration, and which of them is the best."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from analysis.standing import best_replicate, measure, standing
from analysis.store import State, StoreError, Writer
from tests.analysis.ledgers import ending, run_json, train

SCORES = {0: 0.5, 1: 0.7, 3: 0.6}


@pytest.fixture
def state(tmp_path: Path) -> State:
    """Three seeds of a configuration, a failed one, and another configuration; a sweep has one of them."""
    with Writer(tmp_path) as writer:
        for seed, score in SCORES.items():
            train(writer, run_json("c1", seed), ending(score=score), "grid" if seed == 1 else None)
        train(writer, run_json("c1", 7), ending("failed", score=0.9))
        train(writer, run_json("c2", 0), ending(score=None))
        writer.declare({"sweep": "grid"}, [{"run": run_json("c1", 1), "point": {}}])
        return writer.refresh()


def test_a_run_is_told_beside_the_interval_over_its_seeds(state: State) -> None:
    found = standing(state, "c1-1")
    score, accuracy, pearson = found.measures
    values = list(SCORES.values())
    low, high = stats.t.interval(0.95, 2, stats.tmean(values), stats.sem(values))
    assert (score.split, score.name, score.own, score.seeds) == ("dev", "score", 0.7, (0, 1, 3))
    assert score.mean == pytest.approx((low + high) / 2)
    assert score.half_width == pytest.approx((high - low) / 2)
    assert (accuracy.name, accuracy.mean) == ("sst.accuracy", score.mean)
    assert (pearson.own, pearson.mean, pearson.half_width, pearson.seeds) == (None, None, None, ())
    assert (found.sweeps, found.versions) == (("grid",), {"torch": "2.13.0"})
    assert standing(state, "c1-0").sweeps == ()


def test_one_seed_has_no_interval() -> None:
    found = measure("dev", "score", {4: 0.5}, 4)
    assert (found.mean, found.half_width, found.seeds) == (0.5, None, (4,))


def test_the_best_run_of_a_configuration_has_the_highest_score(state: State) -> None:
    assert best_replicate(state, "c1", "score").run_id == "c1-1"
    assert best_replicate(state, "c2", "score").run_id == "c2-0"  # nothing to choose from


def test_a_configuration_without_a_completed_run_and_a_failed_run_are_told(state: State) -> None:
    with pytest.raises(StoreError, match="configuration c9: no completed run"):
        best_replicate(state, "c9", "score")
    with pytest.raises(StoreError, match="run c1-7 is failed; expected a completed run"):
        standing(state, "c1-7")


def test_several_runs_without_a_value_cannot_be_told_apart(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        for seed in (0, 1):
            train(writer, run_json("c1", seed), ending(score=None))
        state = writer.refresh()
    with pytest.raises(StoreError, match=r"none of its runs has a score .* c1-0, c1-1"):
        best_replicate(state, "c1", "score")
