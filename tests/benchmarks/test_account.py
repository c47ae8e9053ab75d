"""The account of a results folder sees each kind of harm: else a soak that finds none would say nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from analysis.store import Writer
from analysis.store.records import decode, encode
from benchmarks.account import Account, Auditor
from benchmarks.faulty import CountingMaterial, search_of
from mtbert.run import Run

DATA, MODEL = CountingMaterial.data, CountingMaterial.model
SEARCH = search_of("search")


class Folder:
    """A results folder in which one run was stopped, went on, and ended, and its witness."""

    def __init__(self, place: Path) -> None:
        self.results, self.witness = place / "results", place / "witness"
        self.auditor = Auditor(self.results, self.witness, SEARCH, DATA, MODEL, every=2)
        self.run = self.run_of(8)
        with Writer(self.results, "first") as writer:
            for status, steps in (("stopped", range(1, 3)), ("completed", range(3, 5))):
                self.train(writer, self.run, status, steps)

    def run_of(self, rank: int) -> Run:
        point = {"low_rank.rank": rank, "low_rank.alpha": 2.0, "training.warmup": 0.1}
        return SEARCH.run(point, 0, DATA, MODEL).run

    def train(self, writer: Writer, run: Run, status: str, steps: range) -> None:
        attempt = writer.begin(run.as_json(), "search").attempt
        assert attempt is not None
        self.say("admit", run, steps[0] - 1)
        for step in steps:
            self.say("step", run, step)
        last = steps[-1]
        writer.evaluation(run.run_id, attempt, {"step": last, "epoch": 0, "rows": [], "score": 0.5})
        rows = {"task": ["t"], "example_id": ["a"], "prediction": [0.0], "label": [1.0]}
        end = {"status": status, "step": last, "kept_step": last, "score": 0.5, "metrics": {}, "error": None}
        writer.end(run.run_id, attempt, end, rows if status == "completed" else {}, b"")

    def say(self, kind: str, run: Run, step: int) -> None:
        with open(self.witness, "a", encoding="utf-8") as file:
            file.write(f"{kind} {run.run_id} {step} 1 {time.time()}\n")

    def append(self, **changes: Any) -> None:
        """The last ending, once more, with these changes of its record."""
        (segment,) = (self.results / "ledger" / "segments").iterdir()
        last = decode(segment.read_bytes().splitlines()[-1])
        assert isinstance(last, dict)
        record = last["record"] | changes
        with open(segment, "ab") as file:
            file.write(encode(last | {"record": record, "attempt": last["attempt"] + 1}))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def harm(account: Account) -> dict[str, int]:
    names = ("stored_twice", "wrong_points", "trained_again", "unexcused")
    found = {name: getattr(account, name) for name in names} | {"unreadable": len(account.unreadable)}
    return {name: count for name, count in found.items() if count}


def test_a_sound_folder_shows_no_harm(folder: Folder) -> None:
    account = folder.auditor.look()
    assert harm(account) == {}
    assert list(account.ended) == [folder.run.run_id]
    assert (account.stored, account.repeated, account.points) == (1, 0, {"COMPLETE": 1})
    assert account.lost_since(account) == 0


def test_an_ending_stored_twice_is_seen(folder: Folder) -> None:
    folder.append()
    assert harm(folder.auditor.look()) == {"stored_twice": 1}


def test_an_ending_that_is_gone_or_has_changed_is_lost(folder: Folder) -> None:
    before = folder.auditor.look()
    folder.append(step=5)
    assert folder.auditor.look().lost_since(before) == 1
    (segment,) = (folder.results / "ledger" / "segments").iterdir()
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[:-2]))
    fresh = Auditor(folder.results, folder.witness, SEARCH, DATA, MODEL, every=2)
    assert fresh.look().lost_since(before) == 1


def test_a_run_admitted_after_its_end_is_seen(folder: Folder) -> None:
    folder.say("admit", folder.run, 2)
    folder.say("step", folder.run, 3)
    account = folder.auditor.look()
    assert harm(account) == {"trained_again": 1, "unexcused": 1}
    assert account.repeated == 1


def test_steps_repeated_by_an_attempt_that_was_lost_are_excused_up_to_an_evaluation(folder: Folder) -> None:
    other = folder.run_of(9)
    with Writer(folder.results, "second") as writer:
        writer.begin(other.as_json(), "search")
        for step in (1, 2):
            folder.say("step", other, step)
    with Writer(folder.results, "third") as writer:
        folder.train(writer, other, "stopped", range(1, 3))
    account = folder.auditor.look()
    assert (account.repeated, harm(account)) == (2, {})
    folder.say("step", other, 1)
    assert harm(folder.auditor.look()) == {"unexcused": 1}


def test_a_parquet_file_that_does_not_open_is_named(folder: Folder) -> None:
    (file,) = (folder.results / "ledger" / "predictions").iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert harm(folder.auditor.look()) == {"unreadable": 1}
    assert str(file) in folder.auditor.look().unreadable[0]


def test_a_point_that_the_study_lacks_is_seen(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(folder.results, "second") as writer:
        folder.train(writer, folder.run_of(9), "stopped", range(1, 3))
    known = folder.auditor._history.known
    monkeypatch.setattr(folder.auditor._history, "known", lambda state: known(state)[:1])
    assert harm(folder.auditor.look()) == {"wrong_points": 1}
