"""Two results folders in one: no order, no repetition and no death in between makes a difference."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.__main__ import main
from analysis.query import query
from analysis.store import State, StoreError, Tag, Writer, read, read_weights, weights_path
from analysis.store.files import Layout
from analysis.store.records import encode, evaluation_line
from analysis.store.replay import Replay
from analysis.store.union import unite
from tests.analysis.ledgers import ending, evaluation, run_json, train
from tests.analysis.test_crashes import check_whole, process
from tests.analysis.test_replay import record as any_record


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return tmp_path / "other"


def united(target: Path, *sources: Path) -> State:
    with Writer(target) as writer:
        for source in sources:
            unite(writer, source)
        writer.compact()
    return read(target)


def files(results: Path) -> dict[str, bytes]:
    """All that counts in a folder: not the locks, and not what is made from the ledger."""
    paths = [path for path in results.rglob("*") if path.is_file()]
    kept = {str(path.relative_to(results)): path for path in paths if path.suffix != ".lock"}
    made = ("tables/", "ledger/snapshot", "ledger/lock")
    return {name: path.read_bytes() for name, path in kept.items() if not name.startswith(made)}


def test_a_folder_brings_runs_tags_and_files(results: Path, other: Path) -> None:
    with Writer(results, "here") as writer:
        train(writer, run_json("c1"), ending(score=0.4))
    with Writer(other, "there") as writer:
        writer.declare({"sweep": "far"}, [{"run": run_json("c2"), "point": {"rank": 2}}])
        texts = {"first": ["x"], "second": [None], "label": [1.0]}
        writer.examples("data1", {"id": ["example0"], "task": ["sst"], "split": ["dev"], **texts})
        train(writer, run_json("c2"), ending(score=0.6))
        writer.tag(Tag("sweep", "far", "paper"))
    before = files(other)
    state = united(results, other)
    assert {run_id: run.status for run_id, run in state.runs.items()} == {
        "c1-0": "completed",
        "c2-0": "completed",
    }
    assert state.labels == {"c2-0": ("paper",)}
    assert state.sweep("far").points == {"c2-0": {"rank": 2}}
    assert files(other) == before
    check_whole(results)
    asked = query(
        results, "select distinct run_id from predictions join examples using (example_id) order by 1"
    )
    assert asked["run_id"].to_pylist() == ["c1-0", "c2-0"]


def test_a_second_time_there_is_nothing_to_do(
    results: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, config in ((results, "c1"), (other, "c2")):
        with Writer(folder) as writer:
            train(writer, run_json(config), ending())
    assert main(["merge", str(results), str(other)]) == 0
    assert "1 new run(s), 1 segment(s) and 2 other file(s) copied" in capsys.readouterr().out
    before = files(results)
    assert main(["merge", str(results), str(other)]) == 0
    assert "0 new run(s), 0 segment(s) and 0 other file(s) copied, 0 bytes" in capsys.readouterr().out
    assert files(results) == before


def test_a_folder_that_has_grown_brings_the_rest(results: Path, other: Path) -> None:
    Writer(results).close()
    with Writer(other, "there") as writer:
        train(writer, run_json("c1"), ending())
    (segment,) = (other / "ledger/segments").iterdir()
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) // 2])  # as it was before, its last line torn
    half = united(results, other)
    assert half.runs["c1-0"].status == "running"
    segment.write_bytes(whole)
    assert united(results, other) == read(other)
    assert (results / "ledger/segments" / segment.name).read_bytes() == whole


def test_where_both_trained_a_run_the_weights_are_those_of_the_standing_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stopped it, one completed it at attempt 1, a third one later: the earliest completion stands."""
    for name, status, weights, at in (
        ("a", "stopped", b"", 1e9),
        ("b", "completed", b"of b", 3e9),
        ("c", "completed", b"of c", 2e9),
    ):
        with monkeypatch.context() as then, Writer(tmp_path / name, name) as writer:
            then.setattr("time.time", lambda at=at: at)
            attempt = writer.begin(run_json()).attempt
            assert attempt == 1
            writer.evaluation("c1-0", attempt, evaluation(50))
            writer.checkpoint("c1-0", attempt, 50, b"of " + name.encode())
            labels = {"task": ["sst"], "example_id": [name], "prediction": [0.0], "label": [1.0]}
            writer.end("c1-0", attempt, ending(status, 100), labels if weights else {}, weights)
    for order in (("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a", "b")):
        target = tmp_path / "".join(order)
        shutil.copytree(tmp_path / order[0], target)
        state = united(target, *(tmp_path / name for name in order[1:]))
        assert state.runs["c1-0"].status == "completed"
        assert read_weights(target, state.runs["c1-0"]) == b"of c"
        assert query(target, "select example_id from predictions")["example_id"].to_pylist() == ["c"]
        assert list((target / "checkpoints").iterdir()) == []


def test_what_a_dead_driver_had_in_flight_goes_on_here(results: Path, other: Path) -> None:
    Writer(results).close()
    with process("hold", other) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "holding\n"
        with Writer(results) as writer, pytest.raises(StoreError, match="at work there is victim"):
            unite(writer, other)
        victim.kill()
        victim.wait()
    state = united(results, other)
    assert (state.runs["c1-0"].status, state.runs["c1-0"].driver) == ("running", "victim")
    with Writer(results) as writer:
        assert writer.begin(run_json()).attempt == 2
        assert writer.load_checkpoint("c1-0") == (10, b"of the victim")


def test_a_folder_at_work_takes_nothing_in(results: Path, other: Path) -> None:
    with Writer(other) as writer:
        train(writer, run_json(), ending())
    with Writer(results, "busy", "ranks"), Writer(results) as writer:
        with pytest.raises(StoreError, match=r"at work there is busy \(ranks\)"):
            unite(writer, other)
        assert writer.refresh() == State()


def test_pruned_weights_do_not_come_back(results: Path, other: Path) -> None:
    with Writer(other) as writer:
        train(writer, run_json(), ending())
    united(results, other)
    with Writer(results) as writer:
        writer.prune("c1-0", "weights")
        weights_path(results, "c1-0").unlink()
    assert united(results, other).runs["c1-0"].ending.pruned is not None  # type: ignore[union-attr]
    assert not weights_path(results, "c1-0").exists()


def test_segments_of_one_name_that_differ_both_stay(results: Path, other: Path) -> None:
    with Writer(results, "same") as writer:
        train(writer, run_json("c1"), ending())
    with Writer(other, "same") as writer:
        train(writer, run_json("c2"), ending())
    (mine,), (theirs,) = ((folder / "ledger/segments").iterdir() for folder in (results, other))
    theirs.rename(theirs.with_name(mine.name))
    for _ in range(2):
        assert sorted(united(results, other).runs) == ["c1-0", "c2-0"]
        assert len(list((results / "ledger/segments").iterdir())) == 2


def test_wrong_folders_are_told(results: Path, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Writer(results).close()
    assert main(["merge", str(results), str(other)]) == 2
    assert f"{other}: no such folder" in capsys.readouterr().err
    assert main(["merge", str(results), str(results)]) == 2
    assert "is the folder that it should go into" in capsys.readouterr().err


def folder_of(results: Path, driver: str, records: list[Any]) -> Path:
    """A results folder whose ledger holds these records."""
    with Writer(results, driver) as writer:
        for each in records:
            line = (
                encode(each)
                if isinstance(each, dict)
                else evaluation_line(each.run_id, each.attempt, each.time, each.record)
            )
            writer._append([line])
    return results


@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.lists(any_record(), max_size=8), min_size=2, max_size=3),
    chance=st.randoms(use_true_random=False),
)
def test_the_union_is_all_records_in_any_order_and_any_number_of_times(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Any]], chance: random.Random
) -> None:
    root = tmp_path_factory.mktemp("union")
    sources = [folder_of(root / str(at), f"driver{at}", part) for at, part in enumerate(parts)]
    everything = Replay()
    for each in (each for part in parts for each in part):
        everything.add(each)
    order = sources + chance.choices(sources, k=2)
    chance.shuffle(order)
    with Writer(root / "target") as writer:
        for source in order:
            unite(writer, source)
        assert writer.refresh() == everything.state()
    assert read(root / "target") == everything.state()


def test_a_death_at_any_moment_of_a_union_leaves_a_whole_folder_and_the_next_ends_it(tmp_path: Path) -> None:
    with process("crash-union", tmp_path / "moments") as running:
        assert running.wait(timeout=120) == 0
    folders = sorted(path for path in (tmp_path / "moments").iterdir() if path.name[0].isdigit())
    assert len(folders) > 20  # else the calls are not those that a union makes
    source = tmp_path / "moments" / "source"
    for folder in folders:
        check_whole(folder)
        with Writer(folder) as writer:
            unite(writer, source)
            assert writer.refresh() == read(source)
        check_whole(folder)
    united(folders[-1], source)
    assert list(folders[-1].rglob("*.tmp")) == []
    assert pq.read_table(Layout.of(folders[-1]).tables / "predictions.parquet").num_rows == 4
