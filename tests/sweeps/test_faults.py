"""What a search with rungs survives, on a real local Ray: nothing lost, doubled, trained again or unreadable.

After each fault the same command goes on. What must hold whatever happened is counted by the benchmarks'
`Auditor`, which has tests of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from analysis.store import RunState, State
from benchmarks.account import Account, Auditor
from benchmarks.struck import Memory, full, kill, lives, read_only
from sweeps.declare import Search
from sweeps.exits import LOST_RAY
from sweeps.search.space import parse_space
from tests.sweeps.conftest import Started, Workplace, eventually
from tests.sweeps.fake import FakeMaterial

pytestmark = pytest.mark.slow
SPACE = {"low_rank.rank": {"low": 1, "high": 10**5}, "training.warmup": {"choices": [0.1, 0.2]}}
RUNGS = {"grace": 2, "reduction": 3}
SEARCH = {"space": SPACE, "budget": {"points": 9}, "top_k": 1, "rungs": RUNGS}
COMMAND = {"name": "search", "steps": 18, "every": 2, "seconds_per_step": 0.05, "seeds": 2, "search": SEARCH}
RUNS = 10
"""The points, and the one finalist's second seed."""


class Watched:
    """A workplace in which the search is run, in packs of some size, and the account of it."""

    def __init__(self, place: Workplace, pack: int = 1, steps: int = 18) -> None:
        self.place, self.pack = place, pack
        base = {"low_rank": {"kind": "lora"}, "training": {"steps": steps}, "evaluation": {"every": 2}}
        search = Search("search", base, parse_space(SPACE))
        witness, data, model = place.folder / "witness", FakeMaterial.data, FakeMaterial.model
        self._auditor = Auditor(place.results, witness, search, data, model, every=2)
        self._before = self._auditor.look()

    def start(self, **changes: Any) -> Started:
        return self.place.start(**COMMAND | {"pack": self.pack} | changes)

    def begun(self, started: Started, ended: int = 3) -> None:
        """Waits until the command has come some way, and a run is in the middle of its training."""
        before = sum(run.status not in (None, "running") for run in self.place.state().runs.values())

        def condition() -> bool:
            assert started.process.poll() is None, started.output
            statuses = Counter(run.status for run in self.place.state().runs.values())
            rested = statuses.total() - statuses["running"] - statuses[None]
            return rested >= before + ended and statuses["running"] > 0

        eventually(condition, "some runs have ended or stopped, and one runs")

    def check(self) -> Account:
        """Nothing of what there was before is lost, and nothing is there twice."""
        account = self._auditor.look()
        assert account.lost_since(self._before) == 0
        assert account.stored_twice == 0
        assert account.trained_again == 0
        assert account.wrong_points == 0
        assert account.unreadable == ()
        assert account.unexcused == 0, self.place.repeated()
        self._before = account
        return account

    def check_ended(self) -> Account:
        """The search has all that it wanted."""
        state, account = self.place.state(), self.check()
        assert len(state.runs) == len(state.sweep("search").points) == RUNS
        assert "RUNNING" not in account.points
        assert sum(account.points.values()) == 9
        assert all(run.status in ("completed", "stopped") for run in state.runs.values())
        checkpoints = {path.name.split("@")[0] for path in (self.place.results / "checkpoints").iterdir()}
        assert checkpoints == {run_id for run_id, run in state.runs.items() if run.status == "stopped"}
        return account


PACKS = [1, 3]


@pytest.fixture(params=PACKS, ids=["alone", "packs"])
def watched(request: pytest.FixtureRequest, workplace: Workplace) -> Watched:
    return Watched(workplace, request.param)


def processes_of(started: Started, prefix: str = "") -> list[psutil.Process]:
    """Ray's living processes of such names that the command has started."""
    children = psutil.Process(started.process.pid).children(recursive=True)
    return [child for child in children if lives(child, prefix)]


def workers(started: Started) -> list[psutil.Process]:
    assert started.process.poll() is None, started.output
    return processes_of(started, "ray::Pack")


def test_kills_of_a_worker_of_the_driver_and_of_everybody_at_once(watched: Watched) -> None:
    first = watched.start()
    watched.begun(first)
    eventually(lambda: workers(first), "a worker lives")[0].kill()
    watched.begun(first, ended=1)
    watched.check()
    first.kill()
    watched.check()

    second = watched.start()
    watched.begun(second, ended=1)
    for process in [*processes_of(second), psutil.Process(second.process.pid)]:
        kill(process)
    second.wait()
    watched.check()

    last = watched.start()
    assert last.wait() == 0, last.output
    assert "its 9 points are tried" in last.output
    watched.check_ended()
    finished = watched.start()
    assert finished.wait() == 0
    assert "nothing to train" in finished.output


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_ray_that_goes_away_ends_the_command_with_a_word(watched: Watched, victim: str) -> None:
    started = watched.start(seconds_per_step=1.0)
    watched.begun(started, ended=1)
    (process,) = processes_of(started, victim)
    process.kill()
    assert started.wait() == LOST_RAY, started.output
    name = {"gcs_server": "GCS", "raylet": "raylet"}[victim]
    assert f"error: Ray has died: nobody listens where its {name} (" in started.output
    assert started.output.endswith("What has ended is kept; to go on:\n  the same command\n")
    watched.check()
    again = watched.start()
    assert again.wait() == 0, again.output
    watched.check_ended()


def test_a_ray_that_stands_still_ends_the_command_too(watched: Watched) -> None:
    started = watched.start(seconds_per_step=1.0)
    watched.begun(started, ended=1)
    (process,) = processes_of(started, "gcs_server")
    process.suspend()
    try:
        assert started.wait() == LOST_RAY, started.output
    finally:
        process.kill()
    assert "error: Ray has not answered for 50 s" in started.output
    watched.check()


@pytest.fixture
def disk(workplace: Workplace) -> Iterator[Path]:
    """A small disk under the results, which takes root to mount."""
    workplace.results.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(workplace.results)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs root: {mounted.stderr.strip()}")
    try:
        yield workplace.results
    finally:
        subprocess.run(["umount", "-l", str(workplace.results)], check=True)


def test_a_full_disk_and_a_folder_made_read_only(disk: Path, watched: Watched) -> None:
    first = watched.start()
    watched.begun(first)
    with full(disk):
        assert first.wait() == 2, first.output
    assert told(first) == "the disk is full: free some space and run the same command again"
    watched.check()
    second = watched.start()
    watched.begun(second, ended=1)
    with read_only(disk):
        assert second.wait() == 2, second.output
        assert told(second) == "the file system is read-only: copy the folder to where it can be written"
        watched.check()
    last = watched.start()
    assert last.wait() == 0, last.output
    watched.check_ended()


def told(started: Started) -> str:
    """The reason in the command's one error line, and the first part of the way out."""
    (error,) = [line for line in started.output.splitlines() if line.startswith("error: cannot ")]
    assert "Traceback" not in started.output
    return error.partition(": cannot ")[2].partition(": ")[2].partition(",")[0]


def test_two_searches_over_one_folder_of_which_one_is_killed(watched: Watched) -> None:
    with watched.place.held() as hold:
        first = watched.start(hold=hold)
        eventually(watched.place.drivers, "it has begun runs")
        second = watched.start()
        eventually(lambda: len(watched.place.drivers()) == 2, "both have begun runs")
        first.kill()
        assert second.wait() == 0, second.output
    account = watched.check_ended()
    assert account.stored == sum(run.final for run in watched.place.state().runs.values())


def test_ray_s_memory_monitor_kills_what_runs_and_it_is_tried_again_alone(
    workplace: Workplace, watched: Watched
) -> None:
    if os.geteuid() != 0:
        pytest.skip("telling Ray another memory than the machine's takes root")
    memory = Memory(workplace.folder / "memory")
    workplace.wrapper = memory.wrapper
    with workplace.held() as hold:
        started = watched.start(hold=hold)
        eventually(workplace.drivers, "it has begun runs")
        training = eventually(lambda: workers(started), "its workers live")
        with memory.scarce():  # until then: the keeper, who is to write down what was lost, may be killed too
            eventually(lambda: not all(map(lives, training)), "a worker is killed")
    assert started.wait() == 0, started.output
    assert "out of memory, it is tried again alone at the end" in started.output
    watched.check_ended()


FATES = {"2": "raise", "3": "diverge", "4": "die once", "5": "memory once", "6": "memory"}


@pytest.mark.parametrize("pack", PACKS, ids=["alone", "packs"])
def test_configurations_that_fail_each_in_their_way(workplace: Workplace, pack: int) -> None:
    watched = Watched(workplace, pack, steps=4)
    start = [{"low_rank.rank": int(rank), "training.warmup": 0.1} for rank in FATES]
    ended = watched.start(steps=4, fate=FATES, search={**SEARCH, "start": start})
    assert ended.wait() == 3, ended.output
    assert "2 of 10 runs failed" in ended.output
    account = watched.check()
    assert sum(account.points.values()) == 9
    assert "RUNNING" not in account.points
    state = workplace.state()
    bug, diverged, died, short, never = (by_rank(state, int(rank)) for rank in FATES)
    assert kind(bug) == "error"
    assert "fake.py" in (bug.ended or {})["error"]["traceback"]
    assert diverged.status == "diverged"
    assert died.status in ("stopped", "completed")
    if pack == 1:  # in a pack the innocent are lost with the guilty
        lost = [line for line in ended.output.splitlines() if "rank 5" in line and "lost with its" in line]
        assert lost == [], "what ran out of memory is said to have run out of memory"
        assert ended.output.count("out of memory, it is tried again alone at the end") == 2
        assert [loss["reason"] for loss in died.losses] == ["lost"]
        assert [loss["reason"] for loss in short.losses] == ["memory"]
    assert short.status in ("stopped", "completed")
    assert kind(never) == "out of memory"
    assert never.attempt == 2 or pack > 1
    said = workplace.witnessed()
    again = watched.start(steps=4, fate=FATES, search={**SEARCH, "start": start})
    assert again.wait() == 3
    assert "nothing to train" in again.output
    assert workplace.witnessed() == said


def by_rank(state: State, rank: int) -> RunState:
    (found,) = [
        run
        for run in state.runs.values()
        if run.run["configuration"]["low_rank"].get("rank") == rank and run.seed == 0
    ]
    return found


def kind(run: RunState) -> str:
    assert run.ended is not None
    return str(run.ended["error"]["kind"])
