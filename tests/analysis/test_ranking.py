"""The ranking: groups over seeds, honest about runs without a value."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.ranking import ranked
from analysis.store import StoreError
from analysis.store.state import Ending, RunState, State, SweepState
from tests.analysis.ledgers import ending, run_json


def ended(config_id: str, seed: int, record: dict[str, Any], **settings: Any) -> RunState:
    run = run_json(config_id, seed, **settings)
    return RunState(run, record["status"], Ending(1, 1.0, record), 1, begun=1.0)


def state_of(*runs: RunState, **sweeps: dict[str, Any]) -> State:
    made = {
        name: SweepState(
            {"sweep": name, "objective": said["objective"]}, {run_id: {} for run_id in said["runs"]}
        )
        for name, said in sweeps.items()
    }
    return State({run.run_id: run for run in runs}, made)


scores = st.lists(st.floats(0, 1), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from("abcd"), scores, min_size=1))
def test_configurations_with_as_many_runs_are_ranked_by_mean(groups: dict[str, list[float]]) -> None:
    runs = [
        ended(config_id, seed, ending(score=score))
        for config_id, values in groups.items()
        for seed, score in enumerate(values)
    ]
    rows = ranked(state_of(*runs))
    assert [row.rank for row in rows] == list(range(1, len(groups) + 1))
    order = [(row.runs > 1, row.mean) for row in rows]
    assert order == sorted(order, reverse=True)
    for row in rows:
        values = groups[row.config_id]
        assert row.mean == pytest.approx(statistics.fmean(values))
        assert (row.runs, row.low, row.high) == (len(values), min(values), max(values))
        assert row.std == (pytest.approx(statistics.stdev(values)) if len(values) > 1 else None)
        best = max(range(len(values)), key=lambda seed: values[seed])
        assert values[int(row.run_ids[0].split("-")[1])] == values[best]


def test_a_single_run_comes_after_configurations_with_several_however_high_it_is() -> None:
    several = [ended("judged", seed, ending(score=score)) for seed, score in enumerate((0.5, 0.6))]
    rows = ranked(state_of(ended("lucky", 0, ending(score=0.9)), *several))
    assert [row.config_id for row in rows] == ["judged", "lucky"]


def test_only_ended_runs_count() -> None:
    running = RunState(run_json("b"), "running", None, 1, "driver")
    stopped = ended("c", 0, ending("stopped", score=0.9))
    rows = ranked(state_of(ended("a", 0, ending(score=0.5)), running, stopped, RunState(run_json("d"))))
    assert [row.config_id for row in rows] == ["a"]
    with pytest.raises(StoreError, match="no run has ended yet in these results: 2 known, 1 begun"):
        ranked(state_of(running, RunState(run_json("d"))))


def test_a_configuration_with_a_run_without_value_comes_after_those_without_such() -> None:
    rows = ranked(
        state_of(
            ended("high", 0, ending(score=0.9)),
            ended("high", 1, ending("diverged", score=0.95)),
            ended("low", 0, ending(score=0.5)),
            ended("none", 0, ending(score=None)),
        )
    )
    assert [(row.config_id, row.runs, row.without) for row in rows] == [
        ("low", 1, 0),
        ("high", 1, 1),
        ("none", 0, 1),
    ]
    assert rows[1].mean == 0.9  # a diverged run's last score is no score


def test_a_failure_of_the_machine_is_counted_and_not_held_against_the_configuration() -> None:
    rows = ranked(
        state_of(
            ended("best", 0, ending(score=0.9)),
            ended("best", 1, ending("failed", score=None)),
            ended("other", 0, ending(score=0.5)),
        )
    )
    assert [(row.config_id, row.failed, row.without) for row in rows] == [("best", 1, 0), ("other", 0, 0)]


def test_any_number_can_be_ranked_by_in_either_direction() -> None:
    state = state_of(
        ended("a", 0, ending(score=0.9, metrics={"sst.accuracy": 0.1}, trainable=10)),
        ended("b", 0, ending(score=0.8, metrics={"sst.accuracy": 0.2}, trainable=30)),
    )
    assert [row.config_id for row in ranked(state, by="sst.accuracy")] == ["b", "a"]
    assert [row.config_id for row in ranked(state, by="trainable", lowest_first=True)] == ["a", "b"]
    with pytest.raises(
        StoreError, match=r"no run has a metric 'sst'; known are sst\.accuracy, score, trainable"
    ):
        ranked(state, by="sst")


def test_a_sweep_is_ranked_by_its_own_objective() -> None:
    runs = [
        ended("a", 0, ending(score=None, metrics={"sst.accuracy": 0.1})),
        ended("b", 0, ending(score=None, metrics={"sst.accuracy": 0.2})),
        ended("c", 0, ending(score=0.5, metrics={"sst.accuracy": 0.3})),
    ]
    state = state_of(*runs, single={"objective": "sst.accuracy", "runs": ["a-0", "b-0"]})
    rows = ranked(state, "single")
    assert [(row.config_id, row.by, row.mean) for row in rows] == [
        ("b", "sst.accuracy", 0.2),
        ("a", "sst.accuracy", 0.1),
    ]
    assert ranked(state)[0].config_id == "c"


def test_the_fields_are_those_that_tell_the_configurations_apart() -> None:
    same = {"training": {"steps": 5}}
    rows = ranked(
        state_of(
            ended("a", 0, ending(score=0.9), low_rank={"rank": 4}, **same),
            ended("b", 0, ending(score=0.8), low_rank={"rank": 8}, **same),
            ended("c", 0, ending(score=0.7), low_rank=None, **same),
        )
    )
    assert [row.fields for row in rows] == [
        {"low_rank.rank": 4},
        {"low_rank.rank": 8},
        {"low_rank.rank": None},
    ]


def test_runs_on_other_data_are_told_apart() -> None:
    other = ended("b", 0, ending(score=0.8))
    other = RunState(other.run | {"data": "data2"}, other.status, other.ending, 1)
    rows = ranked(state_of(ended("a", 0, ending(score=0.9)), other))
    assert [row.fields for row in rows] == [{"data": "data1"}, {"data": "data2"}]


def test_means_beside_the_score_are_over_the_completed_runs() -> None:
    (row,) = ranked(
        state_of(
            ended("a", 0, ending(step=100, metrics={"x": 1.0, "y": None})),
            ended("a", 1, ending(step=200, metrics={"x": 2.0, "y": 5.0})),
            ended("a", 2, ending("diverged", step=900, metrics={"x": 99.0})),
        )
    )
    assert row.metrics == {"x": 1.5, "y": 5.0}
    assert row.seconds == pytest.approx((10 + 1 + 20 + 2) / 2)
    assert row.trainable == 1000
