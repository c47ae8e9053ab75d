"""`ray up`, the sweep, `ray down` on hosts that are apart and share no folder."""

from __future__ import annotations

import sys

import pytest

from tests.sweeps.cluster.cluster import Cluster, endings, local
from tests.sweeps.cluster.hosts import Hosts, missing
from tests.sweeps.conftest import ROOT, eventually

WHY_NOT = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
GRID = ("--ranks", "1,2,4", "--seeds", "2", "--steps", "60")
RUNS = 6


def test_up_the_sweep_and_down_on_three_hosts(hosts: Hosts) -> None:
    cluster = Cluster(hosts, "head", local(hosts, "head", ["w1", "w2"]))
    assert hosts.on("w1", f"ls {ROOT} 2> /dev/null", code=None) == "", "a host sees the checkout"
    cluster.up(nodes=3)
    for name in hosts.addresses:
        shipped = hosts.on(name, "sha256sum < ~/mtbert/mtbert/trainer.py")
        assert shipped == hosts.run("sh", "-c", "sha256sum < mtbert/trainer.py"), name
    said = hosts.run(*cluster.sweep("results", *GRID))
    assert "Joining the Ray at" in said
    assert "2 at once" in said
    state = cluster.state("results")
    assert len(state.runs) == RUNS
    assert {run.status for run in state.runs.values()} == {"completed"}
    assert set(endings(cluster.fetched("results")).values()) == {1}
    where = {(run.ended or {})["host"] for run in state.runs.values()}
    assert where == {"w1", "w2"}
    sys.stdout.write(f"{said}\nhosts of the runs: {sorted(where)}; nodes: {cluster.nodes()}\n")
    cluster.down()
    daemons = "ps -eo comm= | grep -cE '^(raylet|gcs_server)'"
    for name in hosts.addresses:  # the workers' raylets end when they miss their head
        eventually(lambda name=name: hosts.on(name, daemons, code=None) == "0\n", f"{name} has no Ray")
