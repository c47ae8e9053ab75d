"""A grid on a real local Ray, in which much goes wrong that must not touch the other runs."""

from __future__ import annotations

import os
import shlex
import subprocess

import duckdb
import pytest

from analysis.__main__ import main as analysis_main
from analysis.store import RunState, State
from mtbert.run import Run
from tests.sweeps import fake
from tests.sweeps.conftest import Started, Workplace

FATES = {"2": "raise", "3": "diverge", "4": "die once", "5": "die", "6": "memory once", "7": "memory"}
GRID = {"ranks": [1, 2, 3, 4, 5, 6, 7], "seeds": 1, "steps": 8, "every": 2, "fate": FATES}


@pytest.fixture(scope="module")
def place(shared_workplace: Workplace) -> Workplace:
    """Where the sweep has run to its end."""
    shared_workplace.run(**GRID)
    return shared_workplace


@pytest.fixture
def ended(place: Workplace) -> Started:
    return place.started[0]


@pytest.fixture
def state(place: Workplace) -> State:
    return place.state()


def by_rank(state: State, rank: int) -> RunState:
    (found,) = [
        run for run in state.runs.values() if run.run["configuration"]["low_rank"].get("rank") == rank
    ]
    return found


def test_the_command_says_that_runs_failed_and_how_to_go_on(ended: Started) -> None:
    assert ended.process.returncode == 3
    assert "3 of 7 runs failed" in ended.output
    assert "--retry-failed" in ended.output
    assert "python -m analysis best" in ended.output
    assert "python -m mtbert evaluate" in ended.output
    assert "Traceback" not in ended.output


def test_the_end_names_the_command_that_shows_the_tracebacks(
    ended: Started, place: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    (named,) = [line.split("-m analysis ")[1] for line in ended.output.splitlines() if " errors " in line]
    assert analysis_main(shlex.split(named)) == 0
    shown = capsys.readouterr().out
    assert "(rank 2): error\nTraceback (most recent call last):" in shown
    assert 'raise RuntimeError("a bug in one configuration")' in shown
    assert shown.count("lost 3 times") == 1
    assert str(place.results) in named


def test_an_undisturbed_run_is_stored_as_the_trainer_said(state: State) -> None:
    run = by_rank(state, 1)
    assert run.status == "completed"
    assert run.ended is not None
    assert run.ended["score"] == pytest.approx(fake.fake_score(Run.from_json(run.run), 8))
    assert [evaluation["step"] for evaluation in run.evaluations] == [2, 4, 6, 8]
    assert run.attempt == 1


def test_a_bug_in_one_configuration_is_recorded_with_its_traceback(state: State) -> None:
    run = by_rank(state, 2)
    assert run.status == "failed"
    assert run.ended is not None
    assert run.ended["error"]["kind"] == "error"
    assert run.ended["error"]["message"] == "RuntimeError: a bug in one configuration"
    assert "fake.py" in run.ended["error"]["traceback"]
    assert run.attempt == 1


def test_a_run_that_diverges_ends_so(state: State) -> None:
    assert by_rank(state, 3).status == "diverged"


def test_a_run_whose_worker_dies_goes_on_from_its_checkpoint(state: State, place: Workplace) -> None:
    run = by_rank(state, 4)
    assert run.status == "completed"
    assert [loss["reason"] for loss in run.losses] == ["lost"]
    admitted = [
        step for kind, run_id, step, _ in place.witnessed() if (kind, run_id) == ("admit", run.run_id)
    ]
    assert admitted == [0, 2]


def test_a_run_that_kills_every_worker_fails_after_three(state: State) -> None:
    run = by_rank(state, 5)
    assert run.ended is not None
    assert run.ended["error"]["kind"] == "lost"
    assert run.attempt == 3


def test_a_run_out_of_memory_is_tried_again_alone(state: State, place: Workplace) -> None:
    once, always = by_rank(state, 6), by_rank(state, 7)
    assert once.status == "completed"
    assert [loss["reason"] for loss in once.losses] == ["memory"]
    assert always.ended is not None
    assert always.ended["error"]["kind"] == "out of memory"
    assert always.attempt == 2
    others = [entry for entry in place.witnessed() if entry[1] not in (once.run_id, always.run_id)]
    again = [entry for entry in place.witnessed() if entry[0] == "admit" and entry[1] == once.run_id]
    order = place.witnessed()
    last_of_others = max(index for index, entry in enumerate(order) if entry in others)
    second_try = max(index for index, entry in enumerate(order) if entry in again)
    assert second_try > last_of_others


def test_tables_are_whole_files_that_answer(place: Workplace) -> None:
    tables = place.results / "tables"
    (found,) = duckdb.sql(f"select count(*), count(score) from '{tables}/runs.parquet'").fetchall()
    assert found == (7, 3)
    (points,) = duckdb.sql(f"select count(*) from '{tables}/sweeps.parquet'").fetchall()
    assert points == (7,)
    (predictions,) = duckdb.sql(f"select count(*) from '{tables}/predictions.parquet'").fetchall()
    assert predictions[0] >= 3 * 2


def test_the_same_command_again_trains_nothing_and_starts_no_ray(ended: Started, place: Workplace) -> None:
    before = place.witnessed()
    segments = sorted((place.results / "ledger" / "segments").iterdir())
    again = place.run(**GRID)
    assert again.process.returncode == 3
    assert "nothing to train" in again.output
    assert "Ray" not in again.output
    assert place.witnessed() == before
    assert sorted((place.results / "ledger" / "segments").iterdir()) == segments
    assert table_of(again.output) == table_of(ended.output)


def test_a_finished_sweep_on_a_read_only_folder_shows_its_table(ended: Started, place: Workplace) -> None:
    results = str(place.results)
    mounted = subprocess.run(["mount", "--bind", results, results], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("making a folder read-only for root too needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", results], check=True)
        again = place.run(**GRID)
    finally:
        subprocess.run(["umount", "-l", results], check=True)
    assert again.process.returncode == 3
    assert table_of(again.output) == table_of(ended.output)


def test_another_sweep_over_the_same_runs_takes_them_from_the_ledger(place: Workplace) -> None:
    other = place.run(**{**GRID, "name": "other", "ranks": [1, 3]})
    assert other.process.returncode == 0
    assert "nothing to train" in other.output
    assert len(place.state().sweep("other").points) == 2


def test_ray_leaves_nothing_behind(place: Workplace) -> None:
    assert not list(place.folder.glob(".ray*"))
    assert not os.listdir(place.environment["RAY_TMPDIR"])


def table_of(output: str) -> list[str]:
    """The ranked table: all after the last line of progress."""
    lines = output.splitlines()
    start = max(
        (index for index, line in enumerate(lines) if "nothing to train" in line or "]" in line), default=0
    )
    return [line for line in lines[start + 1 :] if line.strip()]


@pytest.mark.slow
def test_the_first_failure_ends_a_sweep_where_that_is_asked_for(workplace: Workplace) -> None:
    grid = {"ranks": [2, 1, 3, 4, 5, 6], "seeds": 2, "steps": 8, "max_concurrent": 2, "seconds_per_step": 0.1}
    failed = workplace.run(**grid, fate={"2": "raise"}, fail_fast=True)
    assert failed.process.returncode == 3, failed.output
    state = workplace.state()
    first = by_rank_and_seed(state, 2, 0)
    assert first.status == "failed"
    assert f"run {first.run_id} failed" in failed.output.splitlines()[-1]
    assert "RuntimeError: a bug in one configuration" in failed.output
    begun = [run for run in state.runs.values() if run.attempt]
    assert len(begun) <= 4  # the two that were given out at first, and what took a place before it failed
    assert not any(run.status == "running" for run in begun)
    again = workplace.run(**grid, fail_fast=True)
    assert again.process.returncode == 3
    assert "Ray" not in again.output
    sound = workplace.run(**grid, fail_fast=True, retry_failed=True)
    assert sound.process.returncode == 0, sound.output
    assert all(run.status == "completed" for run in workplace.state().runs.values())


def by_rank_and_seed(state: State, rank: int, seed: int) -> RunState:
    (found,) = [
        run
        for run in state.runs.values()
        if (run.run["configuration"]["low_rank"].get("rank"), run.seed) == (rank, seed)
    ]
    return found
