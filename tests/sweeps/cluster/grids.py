"""A grid that a cluster trains while something befalls it, and what must hold of it afterwards."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from analysis.query import query
from analysis.store import read
from tests.sweeps.cluster.cluster import Cluster, endings
from tests.sweeps.conftest import PATIENCE, eventually

GRID = ("--ranks", "1,2,4", "--seeds", "2", "--steps", "120")
RUNS = 6


Outcome = tuple[dict[str, float], list[dict[str, Any]]]
"""Scores by run, and all predictions in order."""


def come_to(cluster: Cluster, results: str, runs: int = RUNS) -> Outcome:
    """What a sweep came to whose every run has ended, once."""
    folder = cluster.fetched(results)
    state, ends = read(folder), endings(folder)
    attempts = {run_id: run.attempt for run_id, run in state.runs.items()}
    hosts = sorted({(run.ended or {})["host"] for run in state.runs.values()})
    sys.stdout.write(
        f"{results}: {len(state.runs)} runs, endings {dict(ends)}, attempts {attempts}, on {hosts}\n"
    )
    assert {run.status for run in state.runs.values()} == {"completed"}
    assert len(state.runs) == runs
    assert set(ends.values()) == {1}
    predicted = query(folder, "select * from predictions order by all").to_pylist()
    return {run_id: (run.ended or {})["score"] for run_id, run in state.runs.items()}, predicted


def half_way(cluster: Cluster, results: str) -> None:
    """Waits until some runs have ended and others are in flight."""
    count = f'cat ~/{results}/ledger/segments/* 2>/dev/null | grep -c \'"kind": *"end"\''
    eventually(lambda: int(cluster.hosts.on("head", count, code=None) or 0) >= 1, "a run ends")


def ended_well(cluster: Cluster, process: subprocess.Popen[bytes], results: str) -> str:
    """What a sweep said that came to its end."""
    code, said = process.wait(PATIENCE), (cluster.hosts.folder / f"{results}.txt").read_text()
    sys.stdout.write("".join(line for line in said.splitlines(True) if "lost" in line or "at once" in line))
    assert code == 0, said
    return said
