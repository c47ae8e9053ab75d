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
IN_THE_MIDDLE = """
import json, pathlib
lines = [line for file in pathlib.Path('ledger/segments').iterdir() for line in file.read_text().splitlines()]
told = [json.loads(line) for line in lines if line.endswith('}')]
found = {kind: {each['run_id'] for each in told if each['kind'] == kind} for kind in ('evaluation', 'end')}
print(len(found['evaluation'] - found['end']))
"""

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


def told(cluster: Cluster, results: str, kind: str) -> int:
    """How many records of a kind the ledger has on the head by now."""
    count = f'cat ~/{results}/ledger/segments/* 2>/dev/null | grep -c \'"kind": *"{kind}"\''
    return int(cluster.hosts.on("head", count, code=None) or 0)


def half_way(cluster: Cluster, results: str) -> None:
    """Waits until some runs have ended and others are in flight."""
    eventually(lambda: told(cluster, results, "end"), "a run ends")


def in_the_middle(cluster: Cluster, results: str) -> None:
    """Waits until every worker is in the midst of a run, which has been evaluated and has not ended."""
    count = f'cd ~/{results} 2>/dev/null && python -c "{IN_THE_MIDDLE}"'
    eventually(lambda: int(cluster.hosts.on("head", count, code=None) or 0) >= 2, "both are in a run")


def ended_well(cluster: Cluster, process: subprocess.Popen[bytes], results: str) -> str:
    """What a sweep said that came to its end."""
    code, said = process.wait(PATIENCE), (cluster.hosts.folder / f"{results}.txt").read_text()
    sys.stdout.write("".join(line for line in said.splitlines(True) if "lost" in line or "at once" in line))
    assert code == 0, said
    return said
