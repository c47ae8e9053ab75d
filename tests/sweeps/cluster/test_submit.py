"""The same command from the laptop, by `ray exec`, `ray submit` and `ray job submit`; what they exit with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.sweeps.cluster.cluster import Cluster
from tests.sweeps.cluster.hosts import missing
from tests.sweeps.conftest import eventually

WHY_NOT = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
GRID = "--ranks 1,2 --seeds 1 --steps 20"
WRONG = "--ranks 0"
DASHBOARD = "http://127.0.0.1:8265"


@pytest.fixture(scope="module")
def dashboard(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, its dashboard's port brought to the laptop."""
    hosts = cluster.hosts
    tunnel = hosts.start("ray", "dashboard", str(cluster.file), log=hosts.folder / "tunnel.txt")
    asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"{DASHBOARD}/api/version")
    eventually(lambda: hosts.run(*asked, code=None) == "401", "the dashboard answers")
    yield cluster
    tunnel.kill()
    tunnel.wait()


def asked(cluster: Cluster, way: str, flags: str) -> tuple[str, ...]:
    """The command on the laptop."""
    on_head = f"cd ~/mtbert && python sweeps/lora_grid.py {flags}"
    if way == "exec":
        return "ray", "exec", str(cluster.file), on_head
    if way == "submit":
        return "ray", "submit", str(cluster.file), "sweeps/lora_grid.py", *flags.split()
    return "ray", "job", "submit", "--address", DASHBOARD, "--", "bash", "-c", on_head


@pytest.mark.parametrize("way", ["exec", "submit", "job"])
def test_it_runs_on_the_head_and_shows_what_it_shows_there(dashboard: Cluster, way: str) -> None:
    results = f"--results /root/by-{way}"
    said = dashboard.hosts.run(*asked(dashboard, way, f"{results} {GRID}"))
    sys.stdout.write(said)
    assert "2 at once" in said
    assert "[2/2]" in said
    assert "mean ± half-width" in said
    assert "python -m analysis best" in said
    state = dashboard.state(f"by-{way}")
    assert {run.status for run in state.runs.values()} == {"completed"}
    hosts = {(run.ended or {})["host"] for run in state.runs.values()}
    assert hosts <= {"w1", "w2"}


@pytest.mark.parametrize("way", ["exec", "submit", "job"])
def test_an_exit_code_of_2_comes_home_as_1_and_the_error_with_it(dashboard: Cluster, way: str) -> None:
    said = dashboard.hosts.run(*asked(dashboard, way, f"--results /root/wrong {WRONG}"), code=1)
    assert "error: --ranks: expected numbers of at least 1, got '0'" in said
