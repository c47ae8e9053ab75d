"""What is given out to which trial, and what is booked when a trial ends."""

from __future__ import annotations

import pytest

from analysis.store import Writer
from mtbert.memory import GpuMemory
from sweeps.drive import KILLED
from sweeps.placement import GIB, Needs
from sweeps.searcher import last_line
from tests.sweeps.direct import Desk, ended, lone, raising


def test_runs_are_given_out_until_the_slots_are_full(desk: Desk) -> None:
    assignments = desk.assignments()
    assert assignments.suggest("t1") == lone(desk.ids[0], 1)
    assert assignments.suggest("t2") == lone(desk.ids[1], 1)
    assert assignments.suggest("t3") is None
    result = desk.pack([[desk.ids[0], 1]], ended(desk.ids[0])).step()
    assignments.complete("t1", result, error=False)
    assert assignments.suggest("t4") == lone(desk.ids[2], 1)
    assert set(assignments.in_flight) == {desk.ids[1], desk.ids[2]}


def test_the_sweep_is_finished_when_the_ledger_says_so(desk: Desk) -> None:
    one = desk.ids[0]
    assignments = desk.assignments(targets={one: 4})
    suggestion = assignments.suggest("t1")
    assert isinstance(suggestion, dict)
    result = desk.pack(suggestion["members"], ended(one)).step()
    assignments.complete("t1", result, error=False)
    assert assignments.suggest("t2") == "FINISHED"


def test_what_a_dead_worker_held_is_booked_as_lost_and_given_out_again(desk: Desk) -> None:
    one = desk.ids[0]
    assignments = desk.assignments(targets={one: 4})
    assignments.suggest("t1")
    assignments.complete("t1", None, error=True)
    assignments.explain("t1", "The actor died unexpectedly", "lost")
    assert assignments.suggest("t2") == lone(one, 2)
    assert [loss["reason"] for loss in desk.state().runs[one].losses] == ["lost"]
    assert (one, "lost") in desk.heard


def test_what_a_worker_held_that_was_killed_for_memory_is_tried_again_alone(desk: Desk) -> None:
    one, two = desk.ids[:2]
    assignments = desk.assignments(targets={one: 4, two: 4}, pack=2, slots=1)
    assignments.suggest("t1")
    assignments.complete("t1", None, error=True)
    assignments.explain("t1", KILLED, "memory")
    again = assignments.suggest("t2")
    assert isinstance(again, dict)
    assert again["members"] == [[one, 2]]
    assert assignments.failure is None
    assert [loss["reason"] for loss in desk.state().runs[two].losses] == ["memory"]


def test_a_worker_that_never_came_to_be_ends_the_sweep(desk: Desk) -> None:
    assignments = desk.assignments()
    assignments.suggest("t1")
    assignments.complete("t1", None, error=True)
    assignments.explain("t1", "Traceback\nModuleNotFoundError: No module named 'torch'\n", "released")
    assert (
        assignments.failure == "a worker could not do its work: ModuleNotFoundError: No module named 'torch'"
    )
    assignments.book()
    assert not desk.state().runs[desk.ids[0]].losses


def test_a_worker_that_booked_before_it_raised_does_not_end_the_sweep(desk: Desk) -> None:
    one = desk.ids[0]
    assignments = desk.assignments()
    suggestion = assignments.suggest("t1")
    assert isinstance(suggestion, dict)
    with pytest.raises(RuntimeError):
        desk.pack(suggestion["members"], raising(RuntimeError("a bug"))).step()
    assignments.complete("t1", None, error=True)
    assignments.explain("t1", "RuntimeError: a bug", "released")
    assignments.book()
    assert assignments.failure is None
    assert (one, "failed") in desk.heard


def test_runs_held_by_a_living_driver_are_waited_for(desk: Desk) -> None:
    with Writer(desk.folder, "other") as other:
        for run_id in desk.ids[:2]:
            other.begin(desk.runs[run_id].as_json())
        assignments = desk.assignments(targets=dict.fromkeys(desk.ids[:2], 4))
        assert assignments.suggest("t1") is None
        assert assignments.outlook(assignments.state()).elsewhere == tuple(desk.ids[:2])
    later = desk.assignments(targets=dict.fromkeys(desk.ids[:2], 4))
    assert later.suggest("t1") == lone(desk.ids[0], 2)


def test_a_failed_run_is_retried_once_when_asked(desk: Desk) -> None:
    one = desk.ids[0]
    with pytest.raises(RuntimeError):
        desk.pack(desk.begin(one), raising(RuntimeError("a bug"))).step()
    assert desk.assignments(targets={one: 4}).suggest("t1") == "FINISHED"
    assignments = desk.assignments(targets={one: 4}, retried=(one,))
    suggestion = assignments.suggest("t1")
    assert suggestion == lone(one, 2)
    with pytest.raises(RuntimeError):
        desk.pack([[one, 2]], raising(RuntimeError("a bug"))).step()
    assignments.complete("t1", None, error=True)
    assert assignments.suggest("t2") == "FINISHED"


def test_a_claim_whose_answer_was_lost_with_the_keeper_is_made_again(desk: Desk) -> None:
    one = desk.ids[0]
    desk.begin(one)
    again = desk.assignments(targets={one: 4})
    # the ledger shows the run as held by this very driver, which knows nothing of it
    assert again.suggest("t1") == lone(one, 2)


def test_on_a_gpu_each_first_trial_measures_and_the_next_share_it(desk: Desk) -> None:
    assignments = desk.assignments(needs=Needs(gpus=1.0), shares=True, slots=1)
    first = assignments.suggest("t1")
    assert isinstance(first, dict)
    assert (first["bundle"], first["measures"]) == ({"CPU": 1.0, "GPU": 1.0}, True)
    desk.memory = GpuMemory(2 * GIB, 3 * GIB, 16 * GIB)
    assignments.complete("t1", desk.pack(first["members"], measures=True).step(), error=False)
    assert assignments.needs == Needs(gpus=0.25)
    assignments.slots = 4
    given = [assignments.suggest(f"u{number}") for number in range(4)]
    assert given == [
        {"members": [[run_id, 1 + (run_id == desk.ids[0])]], "bundle": {"CPU": 1.0, "GPU": 0.25}, "where": {}}
        for run_id in desk.ids[:4]
    ]
    occupied = [begin.occupied for begin in desk.state().runs[desk.ids[0]].begins.values()]
    assert [each and each.gpus for each in occupied] == [1.0, 0.25]


def test_what_ran_out_of_memory_on_a_shared_gpu_has_one_by_itself_and_one_fewer_shares(desk: Desk) -> None:
    one, two = desk.ids[:2]
    assignments = desk.assignments(needs=Needs(gpus=1.0), shares=True, slots=1, targets={one: 4, two: 4})
    desk.memory = GpuMemory(2 * GIB, 3 * GIB, 16 * GIB)
    assignments.suggest("t1")
    assignments.complete("t1", desk.pack([[one, 1]], measures=True).step(), error=False)
    assert assignments.suggest("t2") is not None
    with pytest.raises(MemoryError):
        desk.pack([[one, 2]], raising(MemoryError("no room"))).step()
    assignments.complete("t2", None, error=True)
    assert assignments.suggest("t3") == {**lone(two, 1), "bundle": {"CPU": 1.0, "GPU": 0.3333}}
    assignments.complete("t3", desk.pack([[two, 1]], ended(two)).step(), error=False)
    assert assignments.suggest("t4") == {**lone(one, 3), "bundle": {"CPU": 1.0, "GPU": 1.0}}


def test_a_run_that_another_driver_proposed_is_given_out(desk: Desk) -> None:
    one = desk.ids[0]
    assignments = desk.assignments(runs={}, targets={one: 4})
    desk.keeper.declare({"sweep": "grid"}, [{"run": desk.runs[one].as_json(), "point": {}}])
    assert assignments.suggest("t1") == lone(one, 1)
    assert desk.state().runs[one].run["configuration"] == desk.runs[one].as_json()["configuration"]


def test_the_last_line_of_a_traceback_says_what_happened() -> None:
    assert last_line("Traceback\n  File\nValueError: no\n\n") == "ValueError: no"
    assert last_line("") == ""
