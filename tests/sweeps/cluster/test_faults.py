"""What may happen to hosts during a sweep: every run ends once, and comes to what it would have come to."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from analysis.query import query
from analysis.store import read
from tests.sweeps.cluster.cluster import Cluster, endings
from tests.sweeps.cluster.hosts import missing
from tests.sweeps.conftest import PATIENCE, eventually

WHY_NOT = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
GRID = ("--ranks", "1,2,4", "--seeds", "2", "--steps", "120")
RUNS = 6


def come_to(cluster: Cluster, results: str) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Scores by run, and all predictions in order; of a sweep whose every run has ended once."""
    folder = cluster.fetched(results)
    state, ends = read(folder), endings(folder)
    attempts = {run_id: run.attempt for run_id, run in state.runs.items()}
    hosts = sorted({(run.ended or {})["host"] for run in state.runs.values()})
    sys.stdout.write(
        f"{results}: {len(state.runs)} runs, endings {dict(ends)}, attempts {attempts}, on {hosts}\n"
    )
    assert {run.status for run in state.runs.values()} == {"completed"}
    assert len(state.runs) == RUNS
    assert set(ends.values()) == {1}
    predicted = query(folder, "select * from predictions order by all").to_pylist()
    return {run_id: (run.ended or {})["score"] for run_id, run in state.runs.items()}, predicted


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> tuple[dict[str, float], list[dict[str, Any]]]:
    cluster.hosts.run(*cluster.sweep("undisturbed", *GRID))
    return come_to(cluster, "undisturbed")


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


def test_the_driver_killed_and_called_again_goes_on(cluster: Cluster, undisturbed: object) -> None:
    first = cluster.start("driver", *GRID)
    half_way(cluster, "driver")
    cluster.hosts.on("head", "pkill -9 -f sweeps/lora_grid.py", code=None)  # in the host's own PID namespace
    assert first.wait(PATIENCE) != 0
    cluster.hosts.run(*cluster.sweep("driver", *GRID))
    assert come_to(cluster, "driver") == undisturbed


def test_without_the_token_nobody_is_let_in(cluster: Cluster) -> None:
    head = cluster.hosts.addresses["head"]
    without = "export HOME=/tmp/nobody RAY_AUTH_MODE=disabled; unset RAY_AUTH_TOKEN; mkdir -p $HOME;"
    joined = f"{without} timeout 60 ~/venv/bin/ray start --address={head}:6379 --num-cpus=1"
    before = cluster.nodes()
    said = cluster.hosts.on("w1", joined.replace("~", "/root"), code=None)
    sys.stdout.write(f"ray start without the token: {said[-600:]}\n")
    assert "Ray runtime started" not in said
    assert cluster.nodes() == before
    asked = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/version"
    job = asked.replace(
        "version", 'jobs/ -X POST -H content-type:application/json -d \'{"entrypoint":"id"}\''
    )
    for request in (asked.replace("api/version", "nodes?view=summary"), job):
        assert cluster.hosts.on("head", request) == "401", request
    from_outside = f"curl -s -m 5 http://{head}:8265/api/version"
    assert cluster.hosts.on("w1", from_outside, code=7) == "", "the dashboard listens to other machines"


def test_a_link_that_is_cut_and_mended_changes_nothing(cluster: Cluster, undisturbed: object) -> None:
    process = cluster.start("link", *GRID)
    half_way(cluster, "link")
    cluster.hosts.cut("w2")
    cluster.has(2)
    cluster.hosts.mend("w2")
    said = ended_well(cluster, process, "link")
    assert "1 at once from now on" in said
    assert come_to(cluster, "link") == undisturbed


def test_a_worker_that_loses_power_changes_nothing_and_one_that_joins_late_is_used(
    cluster: Cluster, undisturbed: object
) -> None:
    process = cluster.start("power", *GRID)
    half_way(cluster, "power")
    cluster.hosts.power_off("w1")
    assert "1 at once from now on" in ended_well(cluster, process, "power")
    assert come_to(cluster, "power") == undisturbed
    process = cluster.start("late", *GRID)
    half_way(cluster, "late")
    cluster.hosts.boot("w1")
    said = ended_well(cluster, process, "late")
    assert "2 at once from now on" in said
    assert come_to(cluster, "late") == undisturbed
    assert "w1" in {(run.ended or {})["host"] for run in cluster.state("late").runs.values()}
