"""Kills, Ctrl-C and two drivers at once, on a real local Ray: nothing lost, nothing twice."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from tests.sweeps.conftest import Started, Workplace, eventually

GRID = {"ranks": [1, 2, 3], "seeds": 2, "steps": 30, "every": 5, "seconds_per_step": 0.05}
RUNS = 6


def check_complete(place: Workplace) -> None:
    """Every run ended, once, completed, with all its evaluations."""
    state = place.state()
    assert len(state.runs) == RUNS
    assert {run.status for run in state.runs.values()} == {"completed"}
    assert set(place.endings().values()) == {1}
    for run in state.runs.values():
        assert [evaluation["step"] for evaluation in run.evaluations] == [5, 10, 15, 20, 25, 30]
    assert not list((place.results / "checkpoints").iterdir())


def trained_after(place: Workplace, before: int) -> set[str]:
    return {run_id for kind, run_id, _, _ in place.witnessed()[before:] if kind == "step"}


def processes_of(started: Started) -> list[psutil.Process]:
    return psutil.Process(started.process.pid).children(recursive=True)


def in_the_middle(place: Workplace) -> str | None:
    """A run with a checkpoint but no end, far from it."""
    begun = [run_id for run_id, run in place.state().runs.items() if run.checkpoint_step in (5, 10)]
    return begun[0] if begun else None


def test_kills_of_worker_keeper_and_driver_and_an_interrupt(workplace: Workplace) -> None:
    first = workplace.start(**GRID)
    kill_the_worker_of_a_run(workplace)
    kill_the_keeper(workplace)
    children = processes_of(first)
    first.process.send_signal(signal.SIGINT)
    assert first.wait() == 130
    assert "Interrupted" in first.output
    assert "the same command" in first.output
    assert "Traceback" not in first.output
    eventually(lambda: not any(child.is_running() for child in children), "Ray's processes end")

    before, ended = len(workplace.witnessed()), workplace.ended()
    second = workplace.start(**GRID)
    eventually(lambda: len(workplace.ended()) > len(ended) and in_the_middle(workplace), "a run ends")
    second.kill()
    assert not trained_after(workplace, before) & ended, "an ended run was trained again"

    before, ended = len(workplace.witnessed()), workplace.ended()
    assert workplace.run(**GRID).process.returncode == 0
    check_complete(workplace)
    begun_again = {run_id for kind, run_id, _, _ in workplace.witnessed()[before:] if kind == "admit"}
    assert not begun_again & ended, "an ended run was trained again"
    losses = [loss for run in workplace.state().runs.values() for loss in run.losses]
    assert [loss["reason"] for loss in losses] == ["lost"], "the worker's kill counts, nothing else does"


def kill_the_worker_of_a_run(workplace: Workplace) -> None:
    begun = eventually(lambda: in_the_middle(workplace), "a run has a checkpoint")
    (worker, *_) = [process for _, run_id, _, process in workplace.witnessed() if run_id == begun]
    os.kill(worker, signal.SIGKILL)
    eventually(
        lambda: any(kind == "admit" and step > 0 for kind, _, step, _ in workplace.witnessed()),
        "a run goes on from its checkpoint in another worker",
    )


def kill_the_keeper(workplace: Workplace) -> None:
    (lock,) = (workplace.results / "ledger" / "drivers").iterdir()
    keeper = json.loads(lock.read_text(encoding="utf-8"))["pid"]
    ended = len(workplace.ended())
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: len(workplace.ended()) > ended, "a run ends after the keeper was killed")


@pytest.mark.slow
def test_two_drivers_at_once_share_the_runs(workplace: Workplace) -> None:
    with workplace.held() as hold:
        both = [workplace.start(**GRID, pack=2, hold=hold) for _ in range(2)]
        eventually(lambda: len(workplace.drivers()) == 2, "both have begun runs")
    assert [started.wait() for started in both] == [0, 0]
    check_complete(workplace)
    assert not workplace.repeated()


@pytest.mark.slow
def test_a_lost_results_folder_ends_the_sweep_and_fails_no_run(workplace: Workplace) -> None:
    started = workplace.start(**GRID)
    eventually(lambda: in_the_middle(workplace), "a run has a checkpoint")
    (lock,) = (workplace.results / "ledger" / "drivers").iterdir()
    lock.unlink()
    assert started.wait() == 2
    (error,) = [line for line in started.output.splitlines() if line.startswith("error: ")]
    assert "lock" in error
    assert not any(run.status == "failed" for run in workplace.state().runs.values())


@pytest.mark.slow
def test_a_write_into_the_shared_weights_is_noticed(workplace: Workplace) -> None:
    started = workplace.run(ranks=[2], seeds=1, fate={"2": "write"})
    assert started.process.returncode == 2
    assert "shared base weights were written to" in started.output
