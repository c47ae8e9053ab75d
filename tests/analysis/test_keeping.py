"""Tags, and room made by deleting weights: what the ledger says of them, and what no command may lose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.query import query
from analysis.store import StoreError, Tag, Writer, read, read_weights, weights_path
from analysis.store.pruning import Prunable, prunable, prune
from tests.analysis.ledgers import ending, evaluation, run_json, train

RANKS = (2, 4, 8)


@pytest.fixture
def filled(writer: Writer, results: Path) -> Path:
    """Three configurations over two seeds, better by rank; one more run stopped, one in no sweep."""
    points = [(rank, seed) for rank in RANKS for seed in (0, 1)]
    runs = [run_json(f"c{rank}", seed, low_rank={"kind": "lora", "rank": rank}) for rank, seed in points]
    writer.declare({"sweep": "ranks", "kind": "grid"}, [{"run": run, "point": {}} for run in runs])
    for run in runs:
        train(writer, run, ending(score=0.5 + run["configuration"]["low_rank"]["rank"] / 100))
    stopped = run_json("c16", low_rank={"kind": "lora", "rank": 16})
    attempt = writer.begin(stopped, "ranks").attempt
    assert attempt is not None
    writer.evaluation("c16-0", attempt, evaluation(10))
    writer.checkpoint("c16-0", attempt, 10, b"state at 10")
    writer.end("c16-0", attempt, ending("stopped", 10), {}, b"")
    train(writer, run_json("alone"), ending(score=0.1))
    writer.close()
    return results


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def tagged(results: Path, label: str) -> list[str]:
    sql = f"select run_id from runs where list_contains(tags, '{label}') order by run_id"
    return query(results, sql)["run_id"].to_pylist()


def test_a_tag_is_shown_filtered_by_and_taken_away(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run c4-1: tagged paper" in ask(capsys, "tag", filled, "c2-0", "c4-1", "paper")
    ask(capsys, "tag", filled, "c4-1", "odd")
    shown = ask(capsys, "runs", filled, "--tag", "paper", "--format", "json")
    assert {row["run_id"]: row["tags"] for row in json.loads(shown)} == {
        "c2-0": ["paper"],
        "c4-1": ["odd", "paper"],
    }
    assert "odd, paper" in ask(capsys, "runs", filled, "--tag", "odd")
    ask(capsys, "tag", filled, "c4-1", "paper", "--remove")
    assert tagged(filled, "paper") == ["c2-0"]


def test_a_sweeps_tag_counts_for_its_runs_those_to_come_too(filled: Path) -> None:
    assert main(["tag", str(filled), "ranks", "paper"]) == 0
    assert tagged(filled, "paper") == ["c16-0", *(f"c{rank}-{seed}" for rank in RANKS for seed in (0, 1))]
    with Writer(filled) as writer:
        writer.declare({"sweep": "ranks", "kind": "grid"}, [{"run": run_json("c32"), "point": {}}])
    assert "c32-0" in tagged(filled, "paper")


def test_what_is_tagged_already_is_not_written_again(filled: Path) -> None:
    tag = Tag("run", "c2-0", "paper")
    with Writer(filled) as writer:
        writer.tag(tag)
        size = sum(path.stat().st_size for path in (filled / "ledger/segments").iterdir())
        writer.tag(tag)
        assert sum(path.stat().st_size for path in (filled / "ledger/segments").iterdir()) == size
        assert writer.refresh().tags == {tag}


def test_the_last_word_counts_where_the_first_ones_clock_was_fast(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = Tag("sweep", "ranks", "paper")
    with Writer(filled) as writer:
        with monkeypatch.context() as fast:
            fast.setattr("time.time", lambda: 1e12)
            writer.tag(tag)
        writer.tag(tag, present=False)
    assert read(filled).tags == frozenset()


def test_wrong_tags_are_told(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'nobody': expected a sweep or a run; sweeps are ranks" in refused(
        capsys, "tag", filled, "nobody", "x"
    )
    assert "2 runs have an id that begins with 'c4'" in refused(capsys, "tag", filled, "c4", "x")
    assert "TAG: expected letters" in refused(capsys, "tag", filled, "c4-0", "a b")
    assert "run c4-0 has no tag 'x'; known are none" in refused(
        capsys, "tag", filled, "c4-0", "x", "--remove"
    )


def weights(results: Path) -> list[str]:
    return sorted(path.name.removesuffix(".safetensors") for path in (results / "weights").iterdir())


def test_prune_lists_and_deletes_all_but_the_best_and_the_tagged(
    filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(capsys, "tag", filled, "c2-1", "dear")
    before, everything = query(filled, "select * exclude (weights_bytes, pruned) from runs"), weights(filled)
    options = ("prune", filled, "--keep-best", 1, "--keep-tag", "dear")
    rows = json.loads(ask(capsys, *options, "--format", "json"))
    assert [(row["run_id"], row["what"]) for row in rows] == [
        ("c2-0", "weights"),
        ("c4-0", "weights"),
        ("c4-1", "weights"),
        ("c16-0", "checkpoint"),
    ]
    size = sum(row["size"] for row in rows)
    assert size == 3 * len(b"weights of c2-0") + len(b"state at 10")
    assert f"could be freed: 4 file(s), {size} bytes" in ask(capsys, *options)
    assert weights(filled) == everything  # nothing is deleted unless it is said
    assert f"freed: 4 file(s), {size} bytes" in ask(capsys, *options, "--delete")
    assert weights(filled) == ["alone-0", "c2-1", "c8-0", "c8-1"]
    assert list((filled / "checkpoints").iterdir()) == []
    assert query(filled, "select * exclude (weights_bytes, pruned) from runs") == before
    gone = query(filled, "select run_id from runs where pruned is not null and weights_bytes is null")
    assert sorted(gone["run_id"].to_pylist()) == ["c2-0", "c4-0", "c4-1"]
    assert "freed: 0 file(s), 0 bytes" in ask(capsys, *options, "--delete")


def test_the_best_keep_the_constraints_of_their_search(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run_json(f"c{at}", low_rank={"kind": "lora", "rank": at}) for at in (1, 2, 3)]
    declaration = {
        "sweep": "search",
        "kind": "search",
        "objective": "score",
        "constraints": ["trainable<=1%"],
    }
    writer.declare(declaration, [{"run": run, "point": {}} for run in runs])
    for run, score, trainable in zip(runs, (0.5, 0.6, 0.9), (10, 49, 500), strict=True):
        train(writer, run, ending(score=score, trainable=trainable))
    writer.close()
    ranked = json.loads(ask(capsys, "best", results, "--sweep", "search", "--format", "json"))
    assert [(row["config_id"], row["breaks"]) for row in ranked] == [
        ("c2", []),
        ("c1", []),
        ("c3", ["trainable<=1%"]),
    ]
    shown = ask(capsys, "best", results, "--sweep", "search")
    assert "trainable<=1%" in shown
    assert "#1 (c2) is first with a single run" in shown
    ask(capsys, "prune", results, "--keep-best", 1, "--delete")
    assert weights(results) == ["c2-0"]


def test_where_all_break_a_constraint_none_is_the_best(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declaration = {"sweep": "search", "kind": "search", "objective": "score", "constraints": ["score>=0.9"]}
    writer.declare(declaration, [{"run": run_json(), "point": {}}])
    train(writer, run_json(), ending(score=0.5))
    writer.close()
    shown = ask(capsys, "best", results, "--sweep", "search")
    assert "None keeps every constraint of the sweep, so that none is the best" in shown
    assert "leads" not in shown


def test_prune_goes_by_what_there_is_where_a_sweep_came_to_nothing(
    writer: Writer, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sweep, status in (("broken", "failed"), ("sound", "completed")):
        run = run_json(sweep)
        writer.declare({"sweep": sweep, "kind": "grid", "objective": "sst.f1"}, [{"run": run, "point": {}}])
        metrics = {"sst.f1": 0.5} if status == "completed" else {}
        train(writer, run, ending(status, metrics=metrics))
    writer.close()
    ask(capsys, "prune", results, "--keep-best", 1, "--delete")
    assert weights(results) == ["sound-0"]


def test_prune_of_a_sweep_leaves_other_runs_alone(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(capsys, "tag", filled, "c8-0", "dear")
    ask(capsys, "prune", filled, "--sweep", "ranks", "--keep-tag", "dear", "--delete")
    assert weights(filled) == ["alone-0", "c8-0"]


def test_pruned_weights_are_told_of_with_their_date(filled: Path) -> None:
    with Writer(filled) as writer:
        prune(
            writer, [each for each in prunable(filled, writer.refresh(), (), None) if each.run_id == "c2-0"]
        )
    runs = read(filled).runs
    assert read_weights(filled, runs["c2-1"]) == b"weights of c2-1"
    with pytest.raises(StoreError, match=r"run c2-0: its weights were pruned on 20\d\d-"):
        read_weights(filled, runs["c2-0"])
    with pytest.raises(StoreError, match=r"run c16-0 has no weights at .* \(it is stopped\)"):
        read_weights(filled, runs["c16-0"])


def test_a_stopped_run_without_its_checkpoint_starts_again_and_keeps_its_weights_then(filled: Path) -> None:
    with Writer(filled) as writer:
        prune(writer, prunable(filled, writer.refresh(), (), "ranks"))
        assert writer.refresh().runs["c16-0"].checkpoint is None
        attempt = writer.begin(run_json("c16", low_rank={"kind": "lora", "rank": 16})).attempt
        assert attempt == 2
        assert writer.load_checkpoint("c16-0") is None
        writer.checkpoint("c16-0", attempt, 10, b"state at 10")
        assert writer.load_checkpoint("c16-0") == (10, b"state at 10")
        writer.end("c16-0", attempt, ending(), {}, b"new")
    run = read(filled).runs["c16-0"]
    assert run.ending is not None
    assert run.ending.pruned is None
    assert read_weights(filled, run) == b"new"


def test_a_prune_that_died_after_its_record_is_ended_by_the_next(filled: Path) -> None:
    with Writer(filled) as writer:
        writer.prune("c2-0", "weights")
        writer.prune("c16-0", "checkpoint")
        left = prunable(filled, writer.refresh(), ("c2-1", "c4-0", "c4-1", "c8-0", "c8-1", "alone-0"), None)
        assert [each.run_id for each in left] == ["c2-0", "c16-0"]
        prune(writer, left)
    assert "c2-0" not in weights(filled)
    assert list((filled / "checkpoints").iterdir()) == []


def test_nothing_is_deleted_while_a_driver_works(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = weights(filled)
    with Writer(filled, "busy", "ranks"):
        told = refused(capsys, "prune", filled, "--keep-best", 1, "--delete")
        assert "at work there is busy (ranks); wait for its end, or end it" in told
        assert "could be freed: 5 file(s)" in ask(capsys, "prune", filled, "--keep-best", 1)
    assert weights(filled) == everything


def test_a_run_that_waits_or_trains_is_left_alone(filled: Path) -> None:
    with Writer(filled) as writer:
        attempt = writer.begin(run_json("c16", low_rank={"kind": "lora", "rank": 16})).attempt
        assert attempt is not None
        state = writer.refresh()
    found = [each.run_id for each in prunable(filled, state, (), None)]
    assert "c16-0" not in found
    assert len(found) == 7


def test_prune_wants_a_policy(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected --keep-best N, --keep-tag TAG or both" in refused(capsys, "prune", filled)
    assert "--keep-tag x: no run has it; known are none" in refused(
        capsys, "prune", filled, "--keep-tag", "x"
    )


def test_a_prunable_file_says_what_it_is(filled: Path) -> None:
    first = prunable(filled, read(filled), (), None)[0]
    assert first == Prunable("c2-0", "completed", "weights", 15, weights_path(filled, "c2-0"))
