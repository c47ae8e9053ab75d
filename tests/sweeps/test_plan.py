"""What is given out next, from the ledger and what is in flight alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.store import State, Writer
from sweeps.plan import Outlook, choose, failed_record, lost_at_its_step, mark, outlook, verdict

RUNS = ("a-0", "b-0", "c-0", "d-0")
TARGETS = dict.fromkeys(RUNS, 100)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path, "driver")


def record(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "config_id": run_id[0],
        "seed": 0,
        "data": "d",
        "model": "m",
        "configuration": {},
    }


def begin(writer: Writer, run_id: str, retry_failed: bool = False) -> int:
    attempt = writer.begin(record(run_id), "sweep", retry_failed).attempt
    assert attempt is not None
    return attempt


def lose(writer: Writer, run_id: str, reason: Any = "lost") -> None:
    writer.release(run_id, begin(writer, run_id), reason)


def end(writer: Writer, run_id: str, status: str = "completed", retry_failed: bool = False) -> None:
    attempt = begin(writer, run_id, retry_failed)
    writer.end(run_id, attempt, failed_record("error", "why", "", 5) | {"status": status}, {}, b"")


def view(
    state: State, in_flight: tuple[str, ...] = (), alive: bool = False, retried: tuple[str, ...] = ()
) -> Outlook:
    return outlook(TARGETS, state, in_flight, lambda _: alive, retried)


def test_an_empty_ledger_leaves_every_run_open_in_order(writer: Writer) -> None:
    assert view(writer.refresh()).open == RUNS


def test_ended_runs_are_reached_and_failed_ones_too(writer: Writer) -> None:
    for run_id, status in zip(RUNS, ("completed", "diverged", "failed"), strict=False):
        end(writer, run_id, status)
    seen = view(writer.refresh())
    assert seen.ended == RUNS[:3]
    assert seen.open == ("d-0",)
    assert not seen.finished
    assert view(writer.refresh(), retried=("c-0",)).open == ("c-0", "d-0")


def test_a_stopped_run_is_reached_where_no_more_is_wanted(writer: Writer) -> None:
    attempt = begin(writer, "a-0")
    writer.end("a-0", attempt, failed_record("", "", "", 40) | {"status": "stopped", "error": None}, {}, b"")
    state = writer.refresh()
    assert outlook({"a-0": 40}, state, (), lambda _: False).finished
    assert outlook({"a-0": 41}, state, (), lambda _: False).open == ("a-0",)


def test_runs_of_a_living_driver_are_left_to_it_and_those_of_a_dead_one_come_first(writer: Writer) -> None:
    begin(writer, "c-0")
    assert view(writer.refresh(), alive=True).elsewhere == ("c-0",)
    assert view(writer.refresh(), alive=False).open == ("c-0", "a-0", "b-0", "d-0")


def test_what_is_in_flight_is_not_given_out_again(writer: Writer) -> None:
    begin(writer, "a-0")
    seen = view(writer.refresh(), in_flight=("a-0",), alive=True)
    assert seen.in_flight == ("a-0",)
    assert choose(seen, writer.refresh(), pack=2) == ["b-0", "c-0"]


def test_a_run_out_of_memory_waits_until_nothing_else_runs(writer: Writer) -> None:
    lose(writer, "a-0", "memory")
    state = writer.refresh()
    assert choose(view(state), state, pack=9) == ["b-0", "c-0", "d-0"]
    for run_id in RUNS[2:]:
        end(writer, run_id)
    state = writer.refresh()
    assert choose(view(state, in_flight=("b-0",)), state, pack=9) == []
    end(writer, "b-0")
    state = writer.refresh()
    assert choose(view(state), state, pack=9) == ["a-0"]


def test_packs_get_smaller_with_the_losses_of_their_members(writer: Writer) -> None:
    for run_id in RUNS:
        lose(writer, run_id)
    state = writer.refresh()
    assert choose(view(state), state, pack=8) == ["a-0", "b-0"]
    for run_id in RUNS:
        lose(writer, run_id)
    state = writer.refresh()
    assert choose(view(state), state, pack=8) == ["a-0"]


def test_an_innocent_run_does_not_share_a_pack_with_one_that_was_lost(writer: Writer) -> None:
    lose(writer, "b-0")
    state = writer.refresh()
    assert choose(view(state), state, pack=4) == ["b-0"]
    assert choose(view(state, in_flight=("b-0",)), state, pack=4) == ["a-0", "c-0", "d-0"]


def test_the_third_loss_at_one_step_is_a_failure_and_progress_starts_the_count_anew(writer: Writer) -> None:
    for _ in range(2):
        lose(writer, "a-0")
    run = writer.refresh().runs["a-0"]
    failed = verdict(run, "lost", "its worker died")
    assert failed is not None
    assert failed["error"]["kind"] == "lost"
    assert "its worker died" in failed["error"]["message"]
    assert verdict(run, "released", "") is None
    attempt = begin(writer, "a-0")
    writer.checkpoint("a-0", attempt, 10, b"state")
    run = writer.refresh().runs["a-0"]
    assert lost_at_its_step(run) == 0
    assert verdict(run, "lost", "") is None


def test_out_of_memory_twice_is_a_failure(writer: Writer) -> None:
    begin(writer, "a-0")
    assert verdict(writer.refresh().runs["a-0"], "memory", "") is None
    writer.release("a-0", 1, "memory")
    failed = verdict(writer.refresh().runs["a-0"], "memory", "")
    assert failed is not None
    assert failed["error"]["kind"] == "out of memory"


def test_a_failed_run_that_is_tried_again_starts_without_losses(writer: Writer) -> None:
    for _ in range(2):
        lose(writer, "a-0")
    end(writer, "a-0", "failed")
    begin(writer, "a-0", retry_failed=True)
    assert verdict(writer.refresh().runs["a-0"], "lost", "") is None


def test_beginning_is_no_progress_but_checkpoints_evaluations_and_endings_are(writer: Writer) -> None:
    marks = [mark(writer.refresh(), RUNS)]
    attempt = begin(writer, "a-0")
    assert mark(writer.refresh(), RUNS) == marks[-1]
    evaluation = {"step": 5, "epoch": 0, "rows": [], "score": 0.5}
    writer.evaluation("a-0", attempt, evaluation)
    marks.append(mark(writer.refresh(), RUNS))
    writer.checkpoint("a-0", attempt, 5, b"state")
    marks.append(mark(writer.refresh(), RUNS))
    writer.end("a-0", attempt, failed_record("error", "why", "", 5), {}, b"")
    marks.append(mark(writer.refresh(), RUNS))
    assert len(set(marks)) == 4
