"""What may happen to hosts during a sweep: every run ends once, and comes to what it would have come to."""

from __future__ import annotations

import re
import sys

import pytest

from sweeps.exits import LOST_RAY
from tests.sweeps.cluster.cluster import Cluster, written_after_the_next_begins
from tests.sweeps.cluster.grids import GRID, Outcome, come_to, ended_well, half_way, in_the_middle, told
from tests.sweeps.cluster.hosts import missing
from tests.sweeps.conftest import PATIENCE, eventually

WHY_NOT = missing()
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

TRIAL = "ray::_Inner"
"""What the process of a trial is called."""


@pytest.fixture(scope="module")
def undisturbed(cluster: Cluster) -> Outcome:
    cluster.hosts.run(*cluster.sweep("undisturbed", *GRID))
    return come_to(cluster, "undisturbed")


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
    join = f"import ray; ray.init('ray://{head}:10001'); print('joined')"
    client = f'timeout 100 /root/venv/bin/python -c "{join}"'
    heard = cluster.hosts.on("w1", client, code=None)  # what its server then makes of it is Ray's affair
    assert "joined" in heard or "from server" in heard, heard
    refused = cluster.hosts.on("w1", f"{without} {client}", code=None)
    sys.stdout.write(f"the Ray client without the token: {refused[-200:]}\n")
    assert "joined" not in refused
    assert "from server" not in refused
    assert cluster.nodes() == before
    asked = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/version"
    job = asked.replace(
        "version", 'jobs/ -X POST -H content-type:application/json -d \'{"entrypoint":"id"}\''
    )
    for request in (asked.replace("api/version", "nodes?view=summary"), job):
        assert cluster.hosts.on("head", request) == "401", request
    from_outside = f"curl -s -m 5 http://{head}:8265/api/version"
    assert cluster.hosts.on("w1", from_outside, code=7) == "", "the dashboard listens to other machines"


def cut_while_it_speaks(cluster: Cluster, results: str) -> None:
    """Cuts the link of w2 in the midst of its run, and waits until what it then says does not get through."""
    in_the_middle(cluster, results)
    cluster.hosts.cut("w2")
    eventually(lambda: cluster.hosts.unsent("w2", TRIAL), "w2 has something to say")


def test_what_is_said_over_a_link_that_is_mended_soon_comes_late_and_is_taken(
    cluster: Cluster, undisturbed: Outcome
) -> None:
    process = cluster.start("soon", *GRID)
    cut_while_it_speaks(cluster, "soon")
    cluster.hosts.mend("w2")
    said = ended_well(cluster, process, "soon")
    assert "lost with its worker" not in said
    assert come_to(cluster, "soon") == undisturbed
    assert {run.attempt for run in cluster.state("soon").runs.values()} == {1}


def test_what_is_said_over_a_link_that_is_mended_too_late_does_no_harm(
    cluster: Cluster, undisturbed: Outcome
) -> None:
    process = cluster.start("late-link", *GRID)
    cut_while_it_speaks(cluster, "late-link")
    cluster.has(2)
    unsent = cluster.hosts.unsent("w2", TRIAL)
    sys.stdout.write(f"{unsent} bytes wait on a worker that Ray has given up\n")
    assert unsent, "nothing waits for the link"
    cluster.hosts.mend("w2")
    eventually(
        lambda: not cluster.hosts.unsent("w2", TRIAL), "what has waited has come, or its sender is gone"
    )
    said = ended_well(cluster, process, "late-link")
    assert "1 at once from now on" in said
    assert "lost with its worker" in said
    assert come_to(cluster, "late-link") == undisturbed
    again = [run for run in cluster.state("late-link").runs.values() if run.attempt > 1]
    assert again, "no run was begun again"
    assert not written_after_the_next_begins(cluster.fetched("late-link"))


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
    cluster.hosts.on("w2", f"pkill -STOP {TRIAL}")  # lest it train all before the other is up
    cluster.hosts.boot("w1")
    log = cluster.hosts.folder / "late.txt"
    eventually(lambda: "2 at once from now on" in log.read_text(), "the one that joins is counted")
    cluster.hosts.on("w2", f"pkill -CONT {TRIAL}")
    ended_well(cluster, process, "late")
    assert come_to(cluster, "late") == undisturbed
    assert "w1" in {(run.ended or {})["host"] for run in cluster.state("late").runs.values()}


def test_packs_on_two_hosts_lose_nothing_with_one_of_them(cluster: Cluster, undisturbed: Outcome) -> None:
    process = cluster.start("packs", *GRID, "--pack", "2")
    half_way(cluster, "packs")
    cluster.hosts.power_off("w2")
    ended_well(cluster, process, "packs")
    cluster.hosts.boot("w2")
    scores, _ = come_to(cluster, "packs")
    assert scores == pytest.approx(undisturbed[0], abs=2e-3)  # equal but for rounding


HEAD_LOSSES = {
    "the GCS stands still": ("pkill -STOP -x gcs_server", r"Ray has not answered for 5\d s: its GCS"),
    "the raylet stands still": ("pkill -STOP -x raylet", "Ray has given this node up"),
    "the raylet dies": ("pkill -KILL -x raylet", "Ray has died: nobody listens where its raylet"),
    "the GCS dies": ("pkill -KILL -x gcs_server", "Ray has died: nobody listens where its GCS"),
}
"""What befalls the head while its workers live, and what the command then says."""
LEAVES_SECONDS = 120
"""In which it has said so, and ended."""


def test_a_head_whose_ray_dies_or_stands_still_ends_the_command_which_goes_on_after_ray_up(
    cluster: Cluster, undisturbed: Outcome
) -> None:
    for what, (strike, expected) in HEAD_LOSSES.items():
        before = told(cluster, "head", "begin")
        process = cluster.start("head", *GRID)
        eventually(lambda before=before: told(cluster, "head", "begin") > before, "runs are given out")
        cluster.hosts.on("head", strike)
        code = process.wait(LEAVES_SECONDS)
        said = (cluster.hosts.folder / "head.txt").read_text()
        sys.stdout.write(f"{what}: exit code {code}, {said[said.index('error: ') :]}")
        assert code == LOST_RAY
        assert re.search(f"error: {expected}", said)
        cluster.hosts.on(
            "head", "pkill -KILL -x 'raylet|gcs_server'", code=None
        )  # what stands still stops not
        cluster.up(nodes=3)
    cluster.hosts.run(*cluster.sweep("head", *GRID))
    assert come_to(cluster, "head") == undisturbed
