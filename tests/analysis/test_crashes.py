"""Whatever dies, whenever: the ledger stays readable, no ended run is lost, none is stored twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.store import Reader, State, StoreError, Superseded, Writer, read, weights_path
from analysis.store.compaction import prediction_files
from analysis.store.files import Layout
from analysis.store.records import decode, encode
from analysis.store.replay import Replay
from tests.analysis import processes
from tests.analysis.ledgers import ending, evaluation, predictions, run_json, train

ROOT = Path(__file__).parents[2]


@contextmanager
def process(role: str, results: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.analysis.processes", role, str(results)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def lines_of(results: Path) -> list[dict[str, object]]:
    """All whole records of the ledger."""
    texts = [path.read_bytes() for path in (results / "ledger/segments").iterdir()]
    return [json.loads(line) for text in texts for line in text[: text.rfind(b"\n") + 1].splitlines()]


def state_of(text: bytes) -> State:
    """What the whole lines of a segment amount to, each read on its own."""
    replay = Replay()
    for line in text[: text.rfind(b"\n") + 1].splitlines()[1:]:
        replay.add(decode(line))
    return replay.state()


def check_whole(results: Path) -> None:
    """Every ending has what it names, and every table opens."""
    state, layout = read(results), Layout.of(results)
    for path in prediction_files(layout, state.runs.values()):
        assert pq.read_table(path).num_rows == 2
    for run in state.runs.values():
        if run.ending is not None:
            assert weights_path(results, run.run_id).read_bytes() == b"weights of " + run.run_id.encode()
    for path in layout.tables.glob("*.parquet"):
        pq.read_table(path)


@pytest.fixture
def told(results: Path) -> Path:
    """A results folder in which the story was told once."""
    processes.story(results, "teller")
    return results


def test_every_prefix_of_a_segment_is_a_ledger(told: Path, tmp_path: Path) -> None:
    (segment,) = (told / "ledger/segments").iterdir()
    text = segment.read_bytes()
    cut = tmp_path / "cut" / "ledger" / "segments" / segment.name
    cut.parent.mkdir(parents=True)
    cut.touch()
    follower, expected = Reader(tmp_path / "cut"), State()
    with open(cut, "ab", buffering=0) as file:
        for length in range(1, len(text) + 1):
            file.write(text[length - 1 : length])
            whole = text[length - 1 : length] == b"\n"
            expected = state_of(text[:length]) if whole else expected
            for state in (read(tmp_path / "cut"), follower.refresh()):
                assert state == expected
                assert len(state.notices) == (not whole)


def test_every_prefix_after_a_snapshot_is_a_ledger(told: Path) -> None:
    with Writer(told, "later") as writer:
        train(writer, run_json("c2"), ending())
    (segment,) = (told / "ledger/segments").glob("later*")
    text = segment.read_bytes()
    whole, early = read(told), ("c1-0", "c1-1")
    for length in range(0, len(text), 3):
        segment.write_bytes(text[:length])
        state = read(told)
        assert {run_id: state.runs[run_id] for run_id in early} == {
            run_id: whole.runs[run_id] for run_id in early
        }
        assert state.runs.get("c2-0") == state_of(text[:length]).runs.get("c2-0")


def test_a_death_at_any_write_rename_or_deletion_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a hundred stories, and no power cut among them
    with process("crash", tmp_path / "moments") as running:
        assert running.wait(timeout=120) == 0
    folders = sorted((tmp_path / "moments").iterdir())
    assert len(folders) > 80  # else the calls are not those that the writer makes
    for folder in folders:
        if not (folder / "ledger").is_dir():
            continue
        before = read(folder)
        check_whole(folder)
        processes.story(folder, "successor")
        check_whole(folder)
        after = read(folder)
        ends = Counter(record["run_id"] for record in lines_of(folder) if record["kind"] == "end")
        assert ends == {"c1-0": 1, "c1-1": 1}
        for run in after.runs.values():
            assert run.ended == ending(step=20)
            assert [text.step for text in run.evaluations.texts] == [10, 20]
        assert all(after.runs[run_id] == run for run_id, run in before.runs.items() if run.final)
        assert after.sweep("story").points == {"c1-0": {"seed": 0}, "c1-1": {"seed": 1}}
        assert list(folder.rglob("*.tmp")) == []
        assert list((folder / "checkpoints").iterdir()) == []
        assert pq.read_table(folder / "tables/predictions.parquet").num_rows == 4


def test_a_killed_driver_loses_its_run_to_the_next_with_its_checkpoint(results: Path) -> None:
    with Writer(results, "heir") as heir, process("hold", results) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "holding\n"
        assert heir.begin(processes.RUNS[0]).refused == "held"
        victim.kill()
        victim.wait()
        assert heir.begin(processes.RUNS[0]).attempt == 2
        assert heir.load_checkpoint("c1-0") == (10, b"of the victim")
        assert heir.refresh().runs["c1-0"].scores == [(10, 0.5)]
        with Writer(results, "victim") as late, pytest.raises(Superseded):
            late.evaluation("c1-0", 1, evaluation(20))
        heir.end("c1-0", 2, ending(), predictions(), b"weights")
    assert read(results).runs["c1-0"].status == "completed"


def test_two_drivers_train_every_run_once(results: Path) -> None:
    with process("race", results) as first, process("race", results) as second:
        for running in (first, second):
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
        for running in (first, second):
            assert running.stdin is not None
            running.stdin.write("go\n")
            running.stdin.flush()
        outputs = [running.communicate(timeout=60)[0].split() for running in (first, second)]
    assert not set(outputs[0]) & set(outputs[1])
    assert len(outputs[0]) + len(outputs[1]) == len(processes.MANY)
    check_once(results)


def test_a_driver_killed_again_and_again_ends_every_run_once(results: Path) -> None:
    witnessed: list[str] = []
    for lines in (1, 12, None):
        with process("race", results) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            running.stdin.write("go\n")
            running.stdin.flush()
            if lines is None:
                witnessed += running.stdout.read().split()
            else:
                witnessed += [running.stdout.readline().strip() for _ in range(lines)]
                running.kill()
                running.wait()
                witnessed += running.stdout.read().split()
    assert max(Counter(witnessed).values()) == 1
    check_once(results)


def check_once(results: Path) -> None:
    """Each of the many runs has ended, and was stored once."""
    ends = Counter(record["run_id"] for record in lines_of(results) if record["kind"] == "end")
    assert ends == {run["run_id"]: 1 for run in processes.MANY}
    assert {run.status for run in read(results).runs.values()} == {"completed"}
    check_whole(results)


def test_a_damaged_line_is_told_with_file_line_and_way_out(told: Path) -> None:
    (segment,) = (told / "ledger/segments").iterdir()
    lines = segment.read_bytes().splitlines(keepends=True)
    damaged = next(at for at, line in enumerate(lines) if b'"kind":"end"' in line)
    lines[damaged] = lines[damaged].replace(b'"step":20', b'"step":21')
    (told / "ledger/snapshot.jsonl").unlink()
    segment.write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=rf"{segment.name}, line {damaged + 1}: its checksum") as caught:
        read(told)
    command = re.search(r"\((sed .*?)\)", str(caught.value))
    assert command is not None
    subprocess.run(command[1], shell=True, check=True)  # the way out that it names
    runs = read(told).runs
    assert sorted(run.final for run in runs.values()) == [False, True]
    processes.story(told, "successor")
    assert {run.status for run in read(told).runs.values()} == {"completed"}


def test_a_damaged_last_line_is_passed_over_and_counted(told: Path) -> None:
    (segment,) = (told / "ledger/segments").iterdir()
    (told / "ledger/snapshot.jsonl").unlink()
    text = segment.read_bytes()
    segment.write_bytes(text[:-10] + b"~" + text[-9:])  # as a power cut may leave it
    state = read(told)
    assert state.notices == (f"1 segment(s) end in a torn line, passed over: {segment.name}",)
    assert [run.final for run in state.runs.values()] == [True, False]
    processes.story(told, "successor")
    assert {run.status for run in read(told).runs.values()} == {"completed"}


def test_a_line_taken_out_behind_a_snapshot_is_noticed(told: Path) -> None:
    (segment,) = (told / "ledger/segments").iterdir()
    whole, lines = read(told), segment.read_bytes().splitlines(keepends=True)
    follower = Reader(told)
    assert follower.refresh() == whole
    segment.write_bytes(b"".join(line for line in lines if b'"kind":"evaluation"' not in line))
    for state in (read(told), follower.refresh()):
        assert "has changed" in state.notices[0]
        assert [run.scores for run in state.runs.values()] == [[], []]


def test_a_ledger_of_a_newer_format_is_refused(told: Path) -> None:
    (segment,) = (told / "ledger/segments").iterdir()
    (segment.parent / "new.jsonl").write_bytes(encode({"kind": "segment", "version": 2}))
    with pytest.raises(StoreError, match="written in format 2"):
        read(told)
