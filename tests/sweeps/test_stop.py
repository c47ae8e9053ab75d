"""A sweep or a run is ended from elsewhere: who is asked, who heeds it, and that the same command goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.store import StoreError, Writer, living_drivers
from sweeps.__main__ import main
from sweeps.exits import STOPPED
from sweeps.stop import stop
from tests.sweeps.conftest import Workplace, eventually
from tests.sweeps.direct import Desk, ended, evaluated, lone


def declared(desk: Desk, *run_ids: str) -> None:
    points = [{"run": desk.runs[run_id].as_json(), "point": {"seed": 0}} for run_id in run_ids or desk.ids]
    desk.keeper.declare({"sweep": "grid"}, points)


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {run[0]: run[3] for run in result["runs"]}


def test_a_run_leaves_its_pack_at_the_next_turn_with_its_checkpoint(desk: Desk) -> None:
    one, two = desk.ids[:2]
    declared(desk)
    pack = desk.pack(desk.begin(one, two), evaluated(one, two))
    pack.step()
    assert "driver driver" in stop(desk.folder, one)
    result = pack.step()
    assert (statuses(result), result["done"]) == ({one: "stopped", two: "running"}, False)
    assert desk.trainers[0].members == (two,)
    run = desk.state().runs[one]
    assert (run.status, run.step, run.checkpoint_step) == ("stopped", 2, 2)
    assert run.ended is not None
    assert run.ended["score"] == 0.5  # of the evaluation at step 1
    assert statuses(pack.step()) == {two: "running"}


def test_a_run_that_ends_in_that_turn_has_ended(desk: Desk) -> None:
    one = desk.ids[0]
    declared(desk)
    pack = desk.pack(desk.begin(one), ended(one))
    stop(desk.folder, one)
    assert statuses(pack.step()) == {one: "completed"}


def test_a_run_that_never_was_evaluated_is_stopped_without_a_score(desk: Desk) -> None:
    one = desk.ids[0]
    declared(desk)
    pack = desk.pack(desk.begin(one))
    stop(desk.folder, one)
    assert pack.step()["done"]
    run = desk.state().runs[one]
    assert (run.status, (run.ended or {})["score"]) == ("stopped", None)


def test_a_stopped_run_is_not_started_again_and_a_later_driver_goes_on_with_it(desk: Desk) -> None:
    one, two = desk.ids[:2]
    declared(desk)
    assignments = desk.assignments(targets={one: 4, two: 4}, slots=1)
    suggestion = assignments.suggest("t1")
    assert isinstance(suggestion, dict)
    pack = desk.pack(suggestion["members"])
    stop(desk.folder, one)
    assignments.complete("t1", pack.step(), error=False)
    assert assignments.suggest("t2") == lone(two, 1)
    assignments.complete("t2", desk.pack([[two, 1]], ended(two)).step(), error=False)
    view = assignments.outlook(assignments.state())
    assert (view.left_out, view.open, view.finished) == ((one,), (), True)
    assert assignments.suggest("t3") == "FINISHED"
    later = desk.assignments(targets={one: 4}, driver="later")
    assert later.suggest("t1") == lone(one, 2)


def test_a_run_that_waits_is_left_out_before_it_began(desk: Desk) -> None:
    one, two = desk.ids[:2]
    declared(desk)
    desk.begin(two)
    stop(desk.folder, one)
    assignments = desk.assignments(targets={one: 4})
    assert assignments.suggest("t1") == "FINISHED"


def test_a_sweep_is_ended_for_the_drivers_that_were_at_work_on_it(desk: Desk) -> None:
    declared(desk)
    with Writer(desk.folder, "other", "other-sweep"):
        assert "driver driver" in stop(desk.folder, "grid")
    state = desk.state()
    assert state.is_stopped("grid", "driver")
    assert not state.is_stopped("grid", "other")
    assert not state.is_stopped("grid", "later")
    assert not state.is_stopped("other-sweep", "driver")


def test_a_request_outlives_compaction_and_is_the_same_twice(desk: Desk) -> None:
    declared(desk)
    stop(desk.folder, "grid")
    once = desk.state()
    stop(desk.folder, "grid")
    desk.keeper.compact()
    for segment in Path(desk.folder, "ledger", "segments").iterdir():
        assert segment.stat().st_size  # all are covered by the snapshot
    assert desk.state() == once


def test_what_cannot_be_stopped_is_said(desk: Desk, tmp_path: Path) -> None:
    one, two, three = desk.ids[:3]
    with pytest.raises(StoreError, match="no such folder"):
        stop(tmp_path / "none", "grid")
    declared(desk, one, two)
    desk.pack(desk.begin(one), ended(one)).step()
    with Writer(desk.folder, "lone") as lone:
        lone.begin(desk.runs[three].as_json())
        with pytest.raises(StoreError, match=r"a command of its own \(lone\): end that with Ctrl-C"):
            stop(desk.folder, three)
    with pytest.raises(StoreError, match="'nothing': expected a sweep or a run; sweeps are grid"):
        stop(desk.folder, "nothing")
    with pytest.raises(StoreError, match=r"has ended \(completed\): there is nothing to stop"):
        stop(desk.folder, one)
    desk.keeper.close()
    assert living_drivers(desk.folder) == {}
    for name in ("grid", two):
        with pytest.raises(StoreError, match=r"nobody is at work on it.*no sweep is at work"):
            stop(desk.folder, name)
    assert not desk.state().stops


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: Any) -> None:
    assert main(["stop", "grid", "--results", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


GRID = {"name": "fake", "ranks": [1, 2, 3], "seeds": 1, "steps": 400, "every": 200, "seconds_per_step": 0.02}


@pytest.mark.slow
def test_a_run_and_then_the_sweep_are_ended_while_it_goes_on(workplace: Workplace) -> None:
    hold = workplace.folder / "hold"
    started = workplace.start(**GRID, max_concurrent=1, hold=str(hold))
    first = eventually(
        lambda: next((each[1] for each in workplace.witnessed() if each[0] == "step"), None),
        "a run makes steps",
    )
    hold.touch()  # neither ends by itself before it is told to
    stopping = ("-m", "sweeps", "stop")
    asked = workplace.run(*stopping, first, "--results", "results")
    assert asked.process.returncode == 0, asked.output
    eventually(lambda: workplace.state().runs[first].status == "stopped", "the run is stopped")
    second = eventually(
        lambda: next((each[1] for each in workplace.witnessed() if each[1] != first), None),
        "another run begins",
    )
    asked = workplace.run(*stopping, "fake", "--results", "results")
    assert asked.process.returncode == 0, asked.output
    assert started.wait() == STOPPED, started.output
    last = started.output.strip().splitlines()[-2:]
    assert "stopped from elsewhere" in last[0]
    assert "the same command" in last[1]
    assert workplace.state().runs[second].status is None  # given back
    nobody = workplace.run(*stopping, "fake", "--results", "results")
    assert nobody.process.returncode == 2
    assert "nobody is at work on it" in nobody.output
    short = {**GRID, "seconds_per_step": 0.001}
    again = workplace.run(**short)
    assert again.process.returncode == 0, again.output
    assert {run.status for run in workplace.state().runs.values()} == {"completed"}
    assert set(workplace.endings()) == set(workplace.ended())
    assert not {run_id: count for run_id, count in workplace.repeated().items() if run_id == first}
