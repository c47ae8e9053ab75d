"""A trial: what it tells the keeper, in which order, and whose fault an exception is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtbert.memory import GpuMemory
from mtbert.records import Returned
from sweeps import trainable
from sweeps.keeper import Failure, Keeper
from sweeps.trainable import Pack, Shared
from tests.sweeps.direct import Desk, Handle, ScriptedTrainer, ended, evaluated, raising


def statuses(result: dict[str, Any]) -> dict[str, str]:
    return {run[0]: run[3] for run in result["runs"]}


def test_what_a_step_yields_is_in_the_ledger_before_tune_hears_of_it(desk: Desk) -> None:
    one = desk.ids[0]
    pack = desk.pack(desk.begin(one), evaluated(one), ended(one))
    assert statuses(pack.step()) == {one: "running"}
    run = desk.state().runs[one]
    assert [evaluation["step"] for evaluation in run.evaluations] == [1]
    assert run.checkpoint_step == 1
    result = pack.step()
    assert (statuses(result), result["done"]) == ({one: "completed"}, True)
    assert desk.state().runs[one].status == "completed"


def test_between_evaluations_a_checkpoint_is_due_each_minute(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = desk.ids[0]
    pack = desk.pack(desk.begin(one))
    pack.step()
    assert desk.state().runs[one].checkpoint_step is None
    monkeypatch.setattr(trainable, "CHECKPOINT_SECONDS", 0.0)
    pack.step()
    assert desk.state().runs[one].checkpoint_step == 2


def test_members_come_and_go(desk: Desk) -> None:
    one, two, three = desk.ids[:3]
    pack = desk.pack(desk.begin(one, two))
    pack.step()
    assert desk.trainers[0].members == (one, two)
    pack.apply(stop=(one,), join=desk.begin(three))
    assert set(statuses(pack.step())) == {two, three}
    assert desk.trainers[0].members == (two, three)
    assert pack.reset_config({"members": desk.begin(desk.ids[3])})
    pack.step()
    assert desk.trainers[0].members == (desk.ids[3],)
    assert len(desk.trainers) == 1, "the trainer and its backbone stay"


def test_a_run_goes_on_from_the_keepers_checkpoint(desk: Desk) -> None:
    one = desk.ids[0]
    desk.pack(desk.begin(one), evaluated(one)).step()
    desk.pack(desk.begin(one)).step()
    assert desk.trainers[1].admitted == {one: f"{one} at 1".encode()}


def test_a_run_that_another_driver_took_over_is_dropped(desk: Desk) -> None:
    one, two = desk.ids[:2]
    pack = desk.pack(desk.begin(one, two), lambda _: [], evaluated(one, two))
    pack.step()
    desk.begin(one)  # a later attempt
    result = pack.step()
    assert statuses(result) == {one: "superseded", two: "running"}
    assert desk.trainers[0].members == (two,)
    late = desk.pack([[one, 1]])
    result = late.step()
    assert (statuses(result), result["done"]) == ({one: "superseded"}, True)


def test_a_lone_run_that_raises_has_failed(desk: Desk) -> None:
    one = desk.ids[0]
    pack = desk.pack(desk.begin(one), raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        pack.step()
    error = (desk.state().runs[one].ended or {})["error"]
    assert (error["kind"], error["message"]) == ("error", "RuntimeError: a bug")
    assert "direct.py" in error["traceback"]


def test_a_run_that_cannot_be_admitted_has_failed_and_its_pack_goes_on_elsewhere(desk: Desk) -> None:
    one, culprit = desk.ids[0], desk.ids[9]
    pack = desk.pack(desk.begin(one, culprit))
    with pytest.raises(RuntimeError, match="cannot be admitted"):
        pack.step()
    assert desk.state().runs[culprit].status == "failed"
    assert [release["reason"] for release in desk.state().runs[one].releases] == ["released"]


def test_those_that_come_after_one_that_cannot_be_admitted_are_given_out_again(desk: Desk) -> None:
    culprit, two, three = desk.ids[9], desk.ids[0], desk.ids[1]
    assignments = desk.assignments(targets=dict.fromkeys((culprit, two, three), 4), pack=3, slots=1)
    given = assignments.suggest("t1")
    assert isinstance(given, dict)
    with pytest.raises(RuntimeError, match="cannot be admitted") as raised:
        desk.pack(given["members"], trial="t1").step()
    assignments.complete("t1", None, error=True)
    assignments.explain("t1", f"RuntimeError: {raised.value}", "released")
    again = assignments.suggest("t2")
    assert assignments.failure is None
    assert isinstance(again, dict)
    assert again["members"] == [[two, 2], [three, 2]]
    assert not any(run.losses for run in desk.state().runs.values())


def test_when_a_pack_raises_nobody_knows_who_it_was(desk: Desk) -> None:
    one, two = desk.ids[:2]
    pack = desk.pack(desk.begin(one, two), raising(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        pack.step()
    for run_id in (one, two):
        assert [loss["reason"] for loss in desk.state().runs[run_id].losses] == ["lost"]


def test_want_of_memory_is_booked_as_such(desk: Desk) -> None:
    one = desk.ids[0]
    pack = desk.pack(desk.begin(one), raising(MemoryError("no room")))
    with pytest.raises(MemoryError):
        pack.step()
    assert [loss["reason"] for loss in desk.state().runs[one].losses] == ["memory"]


def test_who_is_given_back_for_want_of_memory_waits_with_its_checkpoint(desk: Desk) -> None:
    one, two = desk.ids[:2]

    def short(trainer: ScriptedTrainer) -> list[Any]:
        del trainer.admitted[two]
        return [Returned(two, "no room for two", 3, b"where it stands")]

    pack = desk.pack(desk.begin(one, two), short)
    result = pack.step()
    assert (statuses(result), result["most"]) == ({one: "running", two: "released"}, 1)
    run = desk.state().runs[two]
    assert (run.status, run.checkpoint_step, run.losses) == (None, 3, [])
    desk.pack(desk.begin(two)).step()
    assert desk.trainers[1].admitted == {two: b"where it stands"}


def test_a_trial_that_measures_gives_its_members_back_after_a_turn_where_they_stand(desk: Desk) -> None:
    one, two = desk.ids[:2]
    pack = desk.pack(desk.begin(one, two), evaluated(one), measures=True)
    desk.memory = GpuMemory(3, 4, 10)
    result = pack.step()
    assert statuses(result) == {one: "released", two: "released"}
    assert result["done"]
    assert result["seen"][:4] == (2, 3, 4, 10)
    for run_id in (one, two):
        run = desk.state().runs[run_id]
        assert (run.status, run.checkpoint_step, run.losses) == (None, 1, [])
    desk.pack(desk.begin(one)).step()
    assert desk.trainers[-1].admitted == {one: f"{one} at 1".encode()}


def test_a_trainer_that_cannot_be_made_is_no_runs_fault(desk: Desk) -> None:
    def make(_: Any) -> Any:
        raise OSError("no such device")

    pack = Pack.__new__(Pack)
    pack.setup({"members": desk.begin(desk.ids[0])}, Shared(Handle(desk.keeper), make, None))
    result = pack.step()
    assert result["done"]
    assert "no such device" in result["failure"]
    assert desk.state().runs[desk.ids[0]].status == "running"


def test_a_keepers_failure_comes_back_as_a_result(desk: Desk) -> None:
    one = desk.ids[0]
    pack = desk.pack(desk.begin(one), evaluated(one))
    (lock,) = (Path(desk.folder) / "ledger" / "drivers").iterdir()
    lock.unlink()
    result = pack.step()
    assert result["done"]
    assert "lock" in result["failure"]


def test_a_results_folder_that_cannot_be_opened_comes_back_as_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    answer = Keeper(str(tmp_path / "file"), "driver", "grid").declare({"sweep": "grid"}, [])
    assert isinstance(answer, Failure)
    assert "file" in answer.message
