"""Replay: order and repetition make no difference, and endings stand in their order of weight."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.store.files import Layout
from analysis.store.records import Entry, decode, encode, evaluation_line
from analysis.store.replay import Replay
from analysis.store.snapshot import load_snapshot, write_snapshot
from analysis.store.state import State
from tests.analysis.ledgers import ending, evaluation, run_json

RUNS = [run_json("c1", 0), run_json("c1", 1)]
run_ids = st.sampled_from([run["run_id"] for run in RUNS])
attempts = st.integers(1, 3)
steps = st.integers(1, 3)
times = st.integers(0, 5).map(float)
statuses = st.sampled_from(["stopped", "failed", "diverged", "completed"])


@st.composite
def record(draw: st.DrawFn) -> Entry:
    """Any record about two runs and two sweeps, sensible beside the others or not."""
    kinds = (
        "run",
        "sweep",
        "point",
        "begin",
        "evaluation",
        "checkpoint",
        "release",
        "end",
        "stop",
        "tag",
        "prune",
    )
    kind = draw(st.sampled_from(kinds))
    about: dict[str, Any] = {"kind": kind, "run_id": draw(run_ids), "time": draw(times)}
    attempt = {"attempt": draw(attempts)}
    if kind == "run":
        run = next(run for run in RUNS if run["run_id"] == about["run_id"])
        return decode(encode(about | {"run": run | draw(st.sampled_from([{}, {"settings": {"rank": 8}}]))}))
    if kind == "sweep":
        sweep = {"sweep": draw(st.sampled_from("ab")), "objective": draw(st.sampled_from(["score", "x"]))}
        return {"kind": "sweep", "sweep": sweep, "time": about["time"]}
    if kind == "stop":
        drivers = draw(st.lists(st.sampled_from(["d1", "d2"]), min_size=1, max_size=2, unique=True))
        what, name = draw(st.sampled_from([("sweep", "a"), ("sweep", "b"), ("run", about["run_id"])]))
        return {"kind": "stop", "what": what, "name": name, "drivers": drivers, "time": about["time"]}
    if kind == "tag":
        what, name = draw(st.sampled_from([("sweep", "a"), ("sweep", "b"), ("run", about["run_id"])]))
        label = {"label": draw(st.sampled_from(["x", "y"])), "present": draw(st.booleans())}
        return {"kind": "tag", "what": what, "name": name, **label, "time": about["time"]}
    if kind == "prune":
        what, of = draw(st.sampled_from([("weights", times), ("checkpoint", st.integers(0, 2))]))
        more = attempt | {"what": what, "of": draw(of)}
    elif kind == "point":
        more = {
            "sweep": draw(st.sampled_from("ab")),
            "point": draw(st.sampled_from([{}, {"rank": 1}, {"rank": 2}])),
        }
    elif kind == "begin":
        more = attempt | {"driver": draw(st.sampled_from(["d1", "d2"])), "commit": None, "dirty": None}
    elif kind == "evaluation":
        scored = evaluation(draw(steps), draw(st.sampled_from([None, 0.25, 0.5])))
        return decode(evaluation_line(about["run_id"], attempt["attempt"], about["time"], scored))
    elif kind == "checkpoint":
        more = attempt | {"step": draw(steps), "size": 3, "crc32": draw(st.integers(0, 2))}
    elif kind == "release":
        more = attempt | {
            "step": draw(steps),
            "reason": draw(st.sampled_from(["lost", "memory", "released"])),
        }
    else:
        more = attempt | {"record": ending(draw(statuses), draw(steps)), "predictions": None, "weights": None}
    return decode(encode(about | more))


def replayed(records: list[Entry]) -> State:
    replay = Replay()
    for each in records:
        replay.add(each)
    return replay.state()


@settings(max_examples=200, deadline=None)
@given(st.lists(record(), max_size=30), st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_give_the_same_state(
    records: list[Entry], chance: random.Random
) -> None:
    shuffled = records + chance.choices(records, k=len(records)) if records else []
    chance.shuffle(shuffled)
    assert replayed(shuffled) == replayed(records)


@settings(max_examples=100, deadline=None)
@given(st.lists(record(), max_size=20), st.lists(record(), max_size=10))
def test_states_in_between_do_not_change_what_comes_out(first: list[Entry], second: list[Entry]) -> None:
    replay = Replay()
    for each in first + second:
        replay.add(each)
        replay.state()
    assert replay.state() == replayed(first + second)


@settings(max_examples=100, deadline=None)
@given(first=st.lists(record(), max_size=25), rest=st.lists(record(), max_size=10))
def test_a_snapshot_and_the_rest_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory, first: list[Entry], rest: list[Entry]
) -> None:
    layout = Layout.of(tmp_path_factory.getbasetemp() / "snapshots")
    layout.ledger.mkdir(parents=True, exist_ok=True)
    replay = Replay()
    for each in first:
        replay.add(each)
    write_snapshot(layout, replay, {}, "test")
    loaded, positions, notices = load_snapshot(layout)
    assert (positions, notices) == ({}, ())
    assert loaded.state() == replayed(first)
    for each in rest:
        loaded.add(each)
    assert loaded.state() == replayed(first + rest)


def weightiest(endings: list[tuple[str, int, int]]) -> tuple[str, int, int]:
    """The rule of the design page, compared pair by pair: (status, step, attempt)."""
    weights = {"stopped": 0, "failed": 1, "diverged": 2, "completed": 2}
    best = endings[0]
    for other in endings[1:]:
        if weights[other[0]] != weights[best[0]]:
            wins = weights[other[0]] > weights[best[0]]
        elif other[0] == "failed":
            wins = other[2] > best[2]
        elif other[1] != best[1]:
            wins = other[1] > best[1]
        else:
            wins = other[2] < best[2]
        best = other if wins else best
    return best


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(attempts, st.tuples(statuses, steps), min_size=1))
def test_the_weightiest_ending_stands(by_attempt: dict[int, tuple[str, int]]) -> None:
    run = RUNS[0]
    records: list[Entry] = [{"kind": "run", "run_id": run["run_id"], "run": run}]
    for attempt, (status, step) in by_attempt.items():
        about = {"kind": "end", "run_id": run["run_id"], "attempt": attempt, "time": 1.0}
        records.append(about | {"record": ending(status, step)})
    found = replayed(records).runs[run["run_id"]]
    expected = weightiest([(status, step, attempt) for attempt, (status, step) in by_attempt.items()])
    assert found.ending is not None
    assert (found.status, found.ending.step, found.ending.attempt) == expected


def begin(attempt: int, driver: str = "d1") -> dict[str, Any]:
    return {"kind": "begin", "run_id": "c1-0", "attempt": attempt, "driver": driver, "time": float(attempt)}


def end(attempt: int, status: str, step: int = 10) -> dict[str, Any]:
    record = ending(status, step)
    return {"kind": "end", "run_id": "c1-0", "attempt": attempt, "time": 5.0, "record": record}


RUN: dict[str, Any] = {"kind": "run", "run_id": "c1-0", "run": RUNS[0]}
CHECKPOINT = {
    "kind": "checkpoint",
    "run_id": "c1-0",
    "attempt": 1,
    "step": 20,
    "size": 1,
    "crc32": 1,
    "time": 1.0,
}


def test_a_later_attempt_makes_a_stopped_or_failed_run_run_again() -> None:
    for status in ("stopped", "failed"):
        run = replayed([RUN, begin(1), end(1, status), begin(2, "d2")]).runs["c1-0"]
        assert (run.status, run.driver, run.ended, run.attempt) == ("running", "d2", None, 2)


def test_a_completed_or_diverged_run_stays_ended_whatever_begins() -> None:
    for status in ("completed", "diverged"):
        run = replayed([RUN, begin(1), end(1, status), begin(2)]).runs["c1-0"]
        assert (run.status, run.driver) == (status, None)
        assert run.ended == ending(status, 10)


def test_giving_back_leaves_the_run_as_it_was_before() -> None:
    release = {"kind": "release", "run_id": "c1-0", "attempt": 2, "reason": "lost", "step": 10, "time": 3.0}
    assert replayed([RUN, begin(2), release]).runs["c1-0"].status is None
    run = replayed([RUN, begin(1), end(1, "stopped"), begin(2), release]).runs["c1-0"]
    assert run.status == "stopped"
    assert run.losses == [{"attempt": 2, "reason": "lost", "step": 10, "time": 3.0}]


def test_a_run_that_was_only_released_has_lost_nothing() -> None:
    release = {
        "kind": "release",
        "run_id": "c1-0",
        "attempt": 1,
        "reason": "released",
        "step": 0,
        "time": 3.0,
    }
    assert replayed([RUN, begin(1), release]).runs["c1-0"].losses == []


def scored(attempt: int, step: int, score: float) -> Entry:
    return decode(evaluation_line("c1-0", attempt, 1.0, evaluation(step, score)))


def test_of_two_attempts_at_one_step_the_first_evaluation_stands() -> None:
    run = replayed([RUN, begin(1), scored(2, 10, 0.75), scored(1, 10, 0.25), scored(2, 20, 0.5)]).runs["c1-0"]
    assert run.scores == [(10, 0.25), (20, 0.5)]
    assert [record["step"] for record in run.evaluations] == [10, 20]


def test_a_retry_after_a_failure_begins_with_an_empty_curve_and_no_checkpoint() -> None:
    before = [RUN, begin(1), scored(1, 10, 0.25), scored(1, 20, 0.25), CHECKPOINT, end(1, "failed", 20)]
    assert replayed(before).runs["c1-0"].scores == [(10, 0.25), (20, 0.25)]
    run = replayed([*before, begin(2), scored(2, 10, 0.75)]).runs["c1-0"]
    assert run.scores == [(10, 0.75)]
    assert run.checkpoint_step is None
    assert run.step == 10


def tag(label: str, time: float, present: bool = True) -> dict[str, Any]:
    about = {"kind": "tag", "what": "run", "name": "c1-0", "label": label}
    return {**about, "present": present, "time": time}


def test_of_a_tag_the_last_word_counts() -> None:
    assert replayed([RUN, tag("x", 1.0), tag("x", 2.0, False), tag("y", 1.0)]).labels == {"c1-0": ("y",)}
    assert replayed([RUN, tag("x", 2.0, False), tag("x", 3.0)]).labels == {"c1-0": ("x",)}


def test_a_sweeps_tag_is_each_of_its_runs() -> None:
    sweep = {"kind": "sweep", "sweep": {"sweep": "a"}, "time": 1.0}
    point = {"kind": "point", "sweep": "a", "run_id": "c1-0", "point": {}, "time": 1.0}
    of_sweep = {**tag("x", 1.0), "what": "sweep", "name": "a"}
    assert replayed([RUN, sweep, point, of_sweep, tag("y", 1.0)]).labels == {"c1-0": ("x", "y")}
    assert replayed([RUN, of_sweep]).labels == {}


def prune(what: str, attempt: int, of: float) -> dict[str, Any]:
    about = {"kind": "prune", "run_id": "c1-0", "attempt": attempt}
    return {**about, "what": what, "of": of, "time": 9.0}


def test_a_prune_speaks_of_one_ending_and_of_one_checkpoint() -> None:
    records = [RUN, begin(1), CHECKPOINT, end(1, "stopped", 20)]
    pruned = replayed([*records, prune("checkpoint", 1, CHECKPOINT["crc32"])]).runs["c1-0"]
    assert (pruned.checkpoint, pruned.step) == (None, 20)
    other = CHECKPOINT["crc32"] + 1
    assert replayed([*records, prune("checkpoint", 1, other)]).runs["c1-0"].checkpoint_step == 20
    ended = [RUN, begin(1), end(1, "completed")]
    of = ended[-1]["time"]
    for attempt, time, expected in ((1, of, 9.0), (1, of + 1, None), (2, of, None)):
        ending = replayed([*ended, prune("weights", attempt, time)]).runs["c1-0"].ending
        assert ending is not None
        assert ending.pruned == expected


def test_a_record_of_a_kind_that_is_not_known_changes_nothing() -> None:
    records = [RUN, begin(1), end(1, "completed")]
    later = [{"kind": "verdict", "run_id": "c1-0", "time": 1.0}, {"kind": "note", "text": "x", "time": 1.0}]
    assert replayed([*records, *later]) == replayed(records)


def test_a_snapshot_of_a_program_with_fewer_kinds_of_records_is_passed_over(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.ledger.mkdir()
    layout.snapshot.write_bytes(encode({"kind": "snapshot", "version": 1, "segments": {}, "bytes": 0}))
    loaded, positions, notices = load_snapshot(layout)
    assert (loaded.state(), positions, notices) == (State(), {}, ())


def test_the_checkpoint_of_a_stopped_run_is_the_next_attempts() -> None:
    records = [RUN, begin(1), CHECKPOINT, end(1, "stopped", 20)]
    assert replayed(records).runs["c1-0"].checkpoint_step == 20
    assert replayed([*records, begin(2)]).runs["c1-0"].checkpoint_step == 20


def test_a_run_without_its_declaration_is_passed_over_with_a_notice() -> None:
    state = replayed([begin(1), end(1, "completed")])
    assert state.runs == {}
    assert "c1-0" in state.notices[0]
    assert replayed([begin(1), end(1, "completed"), RUN]).runs["c1-0"].status == "completed"


def test_the_state_is_the_same_object_until_a_record_comes() -> None:
    replay = Replay()
    replay.add(RUN)
    state = replay.state()
    assert replay.state() is state
    replay.add(begin(1))
    assert replay.state() is not state
    assert state.runs["c1-0"].status is None  # a state already given out does not change


@settings(max_examples=60, deadline=None)
@given(st.lists(record(), max_size=15), st.data())
def test_a_snapshot_with_a_changed_byte_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, records: list[Entry], data: st.DataObject
) -> None:
    layout = Layout.of(tmp_path_factory.getbasetemp() / "damaged")
    layout.ledger.mkdir(parents=True, exist_ok=True)
    replay = Replay()
    for each in records:
        replay.add(each)
    write_snapshot(layout, replay, {}, "test")
    text = bytearray(layout.snapshot.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1) | st.just(len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    layout.snapshot.write_bytes(bytes(text))
    loaded, _, notices = load_snapshot(layout)
    assert len(notices) == 1
    assert loaded.state() == State()


def test_a_snapshot_is_text_that_any_json_reader_takes(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    layout.ledger.mkdir()
    replay = Replay()
    for each in (RUN, begin(1), scored(1, 10, 0.25), scored(1, 20, 0.5)):
        replay.add(each)
    write_snapshot(layout, replay, {}, "test")
    lines = [json.loads(line) for line in layout.snapshot.read_text().splitlines()]
    assert [record["step"] for record in lines[-1]["texts"]] == [10, 20]
