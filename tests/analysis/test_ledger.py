"""The writer: claims, attempts, what is stored with an ending, and what it refuses."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.store import Fenced, Reader, StoreError, Superseded, Writer, driver_alive, read, weights_path
from tests.analysis.ledgers import ending, evaluation, predictions, run_json, train

SWEEP = {
    "sweep": "lora",
    "kind": "grid",
    "axes": {"low_rank.rank": [4]},
    "objective": "score",
    "declared": 1.0,
}


def die(writer: Writer) -> None:
    """What the kernel does to the locks of a process that is killed."""
    fcntl.flock(writer._lock._descriptor, fcntl.LOCK_UN)


def claimed(writer: Writer, run: dict[str, object] | None = None, **options: bool) -> int:
    attempt = writer.begin(run or run_json(), None, **options).attempt
    assert attempt is not None
    return attempt


def test_everybody_reads_what_the_writer_knows(writer: Writer, results: Path) -> None:
    writer.declare(SWEEP, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
    train(writer, run_json(), ending())
    assert read(results) == writer.refresh()
    run = read(results).runs["c1-0"]
    assert run.run == run_json()
    assert run.ended == ending()
    assert list(run.evaluations) == [evaluation(50), evaluation(100)]
    assert read(results).sweep("lora").points == {"c1-0": {"low_rank.rank": 4}}


def test_an_ended_run_is_not_given_out_again(writer: Writer) -> None:
    for seed, status in enumerate(("completed", "diverged", "failed")):
        train(writer, run_json(seed=seed), ending(status))
        assert writer.begin(run_json(seed=seed)).refused == "ended"
    assert writer.begin(run_json(seed=0), retry_failed=True).refused == "ended"
    assert writer.begin(run_json(seed=2), retry_failed=True).attempt == 2


def test_a_run_is_held_by_a_living_driver_and_free_once_it_is_dead(writer: Writer, results: Path) -> None:
    claimed(writer)
    with Writer(results, "second") as second:
        assert writer.begin(run_json()).refused == "held"
        assert second.begin(run_json()).refused == "held"
        die(writer)
        assert second.begin(run_json()).attempt == 2
        assert second.refresh().runs["c1-0"].driver == "second"
        with pytest.raises(Superseded, match="attempt 1 is over"):
            second.evaluation("c1-0", 1, evaluation(10))


def test_a_closed_writer_frees_its_runs_and_writes_no_more(writer: Writer, results: Path) -> None:
    attempt = claimed(writer)
    assert driver_alive(results, "first")
    writer.close()
    assert not driver_alive(results, "first")
    with pytest.raises(Fenced, match="closed"):
        writer.evaluation("c1-0", attempt, evaluation(10))
    with Writer(results, "second") as second:
        assert second.begin(run_json()).attempt == 2


def test_a_driver_whose_lock_was_removed_is_fenced(writer: Writer, results: Path) -> None:
    attempt = claimed(writer)
    (results / "ledger" / "drivers" / "first.lock").unlink()
    for write in (
        lambda: writer.evaluation("c1-0", attempt, evaluation(10)),
        lambda: writer.checkpoint("c1-0", attempt, 10, b"state"),
        lambda: writer.end("c1-0", attempt, ending(), {}, b""),
        lambda: writer.release("c1-0", attempt, "lost"),
        lambda: writer.begin(run_json(seed=1)),
        lambda: writer.declare(SWEEP, []),
        lambda: writer.compact(),
    ):
        with pytest.raises(Fenced, match=r"first\.lock"):
            write()
    assert list(read(results).runs) == ["c1-0"]
    assert len(read(results).runs["c1-0"].evaluations) == 0


def test_a_name_that_a_living_driver_has_is_refused(
    writer: Writer, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis.store.locks._START_WAIT", 0.0)
    with pytest.raises(StoreError, match="already writes as driver 'first'"):
        Writer(results, "first")
    assert claimed(writer) == 1


def test_a_new_process_of_the_same_driver_goes_on_with_its_runs(writer: Writer, results: Path) -> None:
    attempt = claimed(writer)
    die(writer)
    with Writer(results, "first") as again:
        again.evaluation("c1-0", attempt, evaluation(10))
        assert again.begin(run_json()).refused == "held"
        again.release("c1-0", attempt, "released")
        assert again.begin(run_json()).attempt == 2


def test_writes_of_a_finished_attempt_are_refused(writer: Writer) -> None:
    attempt = claimed(writer)
    writer.release("c1-0", attempt, "lost")
    with pytest.raises(Superseded, match="given back"):
        writer.evaluation("c1-0", attempt, evaluation(10))
    second = claimed(writer)
    for write in (
        lambda: writer.evaluation("c1-0", attempt, evaluation(10)),
        lambda: writer.checkpoint("c1-0", attempt, 10, b"state"),
        lambda: writer.end("c1-0", attempt, ending(), {}, b""),
        lambda: writer.release("c1-0", attempt, "lost"),
    ):
        with pytest.raises(Superseded, match="attempt 2 has begun"):
            write()
    writer.end("c1-0", second, ending(), {}, b"")
    with pytest.raises(Superseded):
        writer.evaluation("c1-0", second, evaluation(200))


def test_an_attempt_that_never_began_is_an_error(writer: Writer) -> None:
    with pytest.raises(StoreError, match="'c1-0' is not in this ledger"):
        writer.evaluation("c1-0", 1, evaluation(10))
    claimed(writer)
    with pytest.raises(StoreError, match="attempt 2 was never begun"):
        writer.evaluation("c1-0", 2, evaluation(10))


def test_saying_a_thing_twice_stores_it_once(writer: Writer, results: Path) -> None:
    def everything() -> None:
        writer.declare(SWEEP | {"declared": 2.0}, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
        writer.evaluation("c1-0", 1, evaluation(10))
        writer.end("c1-0", 1, ending(), predictions(), b"weights")

    writer.declare(SWEEP, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
    claimed(writer)
    everything()
    (segment,) = (results / "ledger" / "segments").iterdir()
    size = segment.stat().st_size
    everything()
    assert segment.stat().st_size == size
    writer.close()
    with Writer(results, "second") as second:
        second.declare(SWEEP, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
    assert list((results / "ledger" / "segments").iterdir()) == [segment]


def test_giving_back_twice_counts_once(writer: Writer) -> None:
    attempt = claimed(writer)
    writer.evaluation("c1-0", attempt, evaluation(30))
    writer.release("c1-0", attempt, "lost")
    writer.release("c1-0", attempt, "lost")
    losses = writer.refresh().runs["c1-0"].losses
    assert [(loss["reason"], loss["step"]) for loss in losses] == [("lost", 30)]


def test_a_run_in_a_second_sweep_is_the_same_run(writer: Writer) -> None:
    writer.declare(SWEEP, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
    train(writer, run_json(), ending(), "lora")
    writer.declare(SWEEP | {"sweep": "other"}, [{"run": run_json(), "point": {"seed": 0}}])
    state = writer.refresh()
    assert len(state.runs) == 1
    assert [run.run_id for run in state.runs_of("other")] == ["c1-0"]
    assert state.sweep("lora").points == {"c1-0": {"low_rank.rank": 4}}
    with pytest.raises(StoreError, match="known are lora, other"):
        state.sweep("nope")


def test_begin_adds_the_run_to_its_sweep_without_overwriting_its_point(writer: Writer) -> None:
    writer.declare(SWEEP, [{"run": run_json(), "point": {"low_rank.rank": 4}}])
    writer.begin(run_json(), "lora")
    writer.begin(run_json(seed=1), "lora")
    assert writer.refresh().sweep("lora").points == {"c1-0": {"low_rank.rank": 4}, "c1-1": {}}


def test_the_furthest_checkpoint_is_kept_and_goes_with_the_ending(writer: Writer, results: Path) -> None:
    attempt = claimed(writer)
    assert writer.load_checkpoint("c1-0") is None
    writer.checkpoint("c1-0", attempt, 10, b"ten")
    writer.checkpoint("c1-0", attempt, 20, b"twenty")
    writer.checkpoint("c1-0", attempt, 20, b"twenty again")
    assert writer.load_checkpoint("c1-0") == (20, b"twenty")
    assert len(list((results / "checkpoints").iterdir())) == 1
    writer.end("c1-0", attempt, ending("stopped", 20), {}, b"")
    assert writer.load_checkpoint("c1-0") == (20, b"twenty")
    assert writer.refresh().runs["c1-0"].checkpoint_step == 20
    writer.end("c1-0", claimed(writer), ending("completed", 30), {}, b"")
    assert writer.load_checkpoint("c1-0") is None
    assert list((results / "checkpoints").iterdir()) == []


def test_the_checkpoints_of_runs_with_alike_names_are_told_apart(writer: Writer) -> None:
    for seed in (1, 10, 11):
        writer.checkpoint(f"c1-{seed}", claimed(writer, run_json(seed=seed)), 10, f"of {seed}".encode())
    writer.end("c1-1", 1, ending(), {}, b"")
    assert writer.load_checkpoint("c1-10") == (10, b"of 10")
    assert writer.load_checkpoint("c1-11") == (10, b"of 11")


def test_a_damaged_checkpoint_is_not_loaded(writer: Writer, results: Path) -> None:
    writer.checkpoint("c1-0", claimed(writer), 10, b"whole")
    (file,) = (results / "checkpoints").iterdir()
    file.write_bytes(b"whale")
    assert writer.load_checkpoint("c1-0") is None


def test_an_ending_brings_its_weights_and_predictions(writer: Writer, results: Path) -> None:
    writer.end("c1-0", claimed(writer), ending(), predictions(3), b"weights")
    assert weights_path(results, "c1-0").read_bytes() == b"weights"
    found = read(results).runs["c1-0"].ending
    assert found is not None
    assert found.weights == len(b"weights")
    table = pq.read_table(results / "ledger" / "predictions" / str(found.predictions))
    assert table.drop_columns("run_id").to_pydict() == predictions(3)
    assert set(table["run_id"].to_pylist()) == {"c1-0"}


def test_an_ending_with_nothing_beside_it_leaves_no_file(writer: Writer, results: Path) -> None:
    writer.end("c1-0", claimed(writer), ending("failed"), {}, b"")
    assert list((results / "weights").iterdir()) == []
    assert list((results / "ledger" / "predictions").iterdir()) == []


def test_what_cannot_be_stored_is_refused_and_told(writer: Writer) -> None:
    attempt = claimed(writer)
    with pytest.raises(StoreError, match="expected columns of one length"):
        writer.end("c1-0", attempt, ending(), predictions() | {"label": [1.0]}, b"")
    with pytest.raises(StoreError, match="expected the columns task, example_id"):
        writer.end("c1-0", attempt, ending(), {"task": ["sst"]}, b"")
    with pytest.raises(StoreError, match="status: expected one of"):
        writer.end("c1-0", attempt, ending("done"), {}, b"")
    with pytest.raises(StoreError, match="config_id missing"):
        writer.begin({name: value for name, value in run_json().items() if name != "config_id"})
    with pytest.raises(StoreError, match="run_id: expected letters"):
        writer.begin(run_json() | {"run_id": "../other"})
    assert writer.refresh().runs["c1-0"].status == "running"


def test_examples_are_stored_once_per_fingerprint(writer: Writer, results: Path) -> None:
    columns = {name: ["a"] for name in ("id", "task", "split", "first")} | {"second": [None], "label": [None]}
    writer.examples("data1", columns)
    written = (results / "ledger/examples/data1.parquet").stat()
    writer.examples("data1", columns)
    assert (results / "ledger/examples/data1.parquet").stat() == written
    writer.examples("data2", columns)
    files = sorted((results / "ledger" / "examples").iterdir())
    assert [file.stem for file in files] == ["data1", "data2"]
    assert pq.read_table(files[0]).to_pylist()[0]["example_id"] == "a"


def test_a_reader_follows_without_reading_again_what_it_has(writer: Writer, results: Path) -> None:
    reader = Reader(results)
    assert reader.refresh().runs == {}
    attempt = claimed(writer)
    assert reader.refresh() == writer.refresh()
    before = reader.refresh()
    assert reader.refresh() is before
    writer.evaluation("c1-0", attempt, evaluation(10))
    assert reader.refresh().runs["c1-0"].scores == [(10, 0.5)]


def test_reading_writes_nothing_and_needs_no_ledger(tmp_path: Path) -> None:
    assert read(tmp_path / "nothing").runs == {}
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_found_by_the_beginning_of_its_id(writer: Writer) -> None:
    for config_id in ("abc1", "abd2"):
        claimed(writer, run_json(config_id))
    state = writer.refresh()
    assert state.find("abc").run_id == "abc1-0"
    assert state.find("abd2-0").run_id == "abd2-0"
    with pytest.raises(StoreError, match="2 runs have an id that begins with 'ab'"):
        state.find("ab")
    with pytest.raises(StoreError, match="known are abc1-0, abd2-0"):
        state.find("x")
