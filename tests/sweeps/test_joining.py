"""Joining a Ray that runs, instead of starting one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from sweeps.placement import GIB
from sweeps.session import SessionError, answers, running_ray
from tests.sweeps.conftest import ROOT, Workplace, eventually


@pytest.fixture
def listening() -> Iterator[str]:
    """An address at which something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent() -> str:
    """An address at which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


def test_what_was_asked_for_comes_before_the_environment(listening: str, silent: str) -> None:
    assert running_ray(listening, {"RAY_ADDRESS": silent}) == listening
    assert running_ray(None, {"RAY_ADDRESS": listening}) == listening
    assert running_ray("local", {"RAY_ADDRESS": listening}) is None


def test_an_address_that_was_asked_for_and_does_not_answer_is_an_error(silent: str) -> None:
    with pytest.raises(SessionError, match="--address: no Ray answers"):
        running_ray(silent, {})
    with pytest.raises(SessionError, match="RAY_ADDRESS: no Ray answers"):
        running_ray(None, {"RAY_ADDRESS": silent})
    with pytest.raises(SessionError, match="expected the host:port"):
        running_ray("ray://somewhere", {})


def test_an_address_file_counts_if_its_port_answers(
    tmp_path: os.PathLike[str], listening: str, silent: str
) -> None:
    folder = os.path.join(tmp_path, "ray")
    os.mkdir(folder)
    environment = {"RAY_TMPDIR": str(tmp_path)}
    assert running_ray(None, environment) is None
    for address, expected in ((listening, listening), (silent, None), ("", None)):
        with open(os.path.join(folder, "ray_current_cluster"), "w", encoding="utf-8") as file:
            file.write(address)
        assert running_ray(None, environment) == expected


def test_what_is_no_address_does_not_answer() -> None:
    assert not answers("somewhere")
    assert not answers("127.0.0.1:port")


RAY = os.path.join(os.path.dirname(sys.executable), "ray")


@contextmanager
def node(workplace: Workplace, *given: str) -> Iterator[psutil.Process]:
    """One of Ray's nodes on this machine, started by `ray start`."""
    process = psutil.Popen(
        [RAY, "start", "--block", *given],
        env=workplace.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        children = process.children(recursive=True)
        process.terminate()
        for child in children:
            child.kill()
        process.wait()


@contextmanager
def started_head(workplace: Workplace, *given: str) -> Iterator[str]:
    """A head without a dashboard; its address file lies in RAY_TMPDIR."""
    workplace.environment |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
    file = os.path.join(workplace.environment["RAY_TMPDIR"], "ray", "ray_current_cluster")
    with node(workplace, "--head", "--port=0", "--include-dashboard=false", *given):
        eventually(lambda: os.path.exists(file) and running_ray(None, workplace.environment), "Ray starts")
        with open(file, encoding="utf-8") as text:
            yield text.read()


@pytest.fixture
def head(workplace: Workplace) -> Iterator[str]:
    """A Ray that `ray start` started, with three cores."""
    with started_head(workplace, "--num-cpus=3") as address:
        yield address


@pytest.mark.slow
def test_a_sweep_joins_a_running_ray_and_leaves_it_running(workplace: Workplace, head: str) -> None:
    started = workplace.run(address=None)
    assert started.process.returncode == 0, started.output
    assert f"Joining the Ray at {head}" in started.output
    assert "3 at once" in started.output
    assert {run.status for run in workplace.state().runs.values()} == {"completed"}
    assert answers(head)
    again = workplace.run(name="more", ranks=[3], address=None)
    assert again.process.returncode == 0, again.output


@pytest.mark.slow
def test_runs_share_a_gpu_by_what_the_first_was_seen_to_take(workplace: Workplace) -> None:
    with started_head(workplace, "--num-cpus=3", "--num-gpus=1"):
        seen = {"pack": 1, "gpu": [2 * GIB, 3 * GIB, 12 * GIB]}
        started = workplace.run(address=None, ranks=[1, 2, 3], steps=40, seconds_per_step=0.05, **seen)
    assert started.process.returncode == 0, started.output
    assert "1 at once (3 cores, 1 GPU" in started.output
    assert "3 trials share a GPU from now on: by itself, one took 3.0 of its 12.0 GiB" in started.output
    assert "3 at once from now on" in started.output
    runs = workplace.state().runs.values()
    assert {run.status for run in runs} == {"completed"}
    parts = [[begin.occupied.gpus for begin in run.begins.values() if begin.occupied] for run in runs]
    assert sorted(parts) == [*[[0.3333]] * 5, [1.0, 0.3333]]
    assert not workplace.repeated(), "the first has gone on where it was"


NODES = "import sys, ray; ray.init(sys.argv[1], log_to_driver=False); print(len(ray.nodes()))"


@pytest.mark.slow
def test_runs_on_cpus_leave_a_node_with_gpus_alone(workplace: Workplace) -> None:
    with (
        started_head(workplace, "--num-cpus=3", "--num-gpus=1") as address,
        node(workplace, f"--address={address}", "--num-cpus=2") as plain,
        workplace.held() as hold,
    ):
        eventually(lambda: asked_of(workplace, address, NODES) == "2", "the second node has joined")
        started = workplace.start(address=None, ranks=[1, 2, 3], gpus_per_run=0, hold=hold)
        eventually(lambda: len(workplace.witnessed()) == 2, "two runs are at their first step")
        on_it = {child.pid for child in plain.children(recursive=True)}
        assert {process for *_, process in workplace.witnessed()} <= on_it
        os.unlink(hold)
        assert started.wait() == 0, started.output
    assert "2 at once (2 cores" in started.output


def asked_of(workplace: Workplace, address: str, code: str) -> str:
    """What a few lines of Python print that join the Ray there."""
    command = [sys.executable, "-c", code, address]
    environment = workplace.environment
    return subprocess.check_output(
        command, env=environment, cwd=ROOT, text=True, stderr=subprocess.DEVNULL
    ).strip()


ASKING = """
import sys, time, ray
from sweeps.capacity import Capacity
from sweeps.placement import Machine, Needs
from sweeps.session import Session

ray.init(sys.argv[1], log_to_driver=False)
room = Capacity(Session(sys.argv[1], False, None), [Machine(4, 1, 0)] * 2, Needs(gpus=1.0), None)
print(room.slots(), room.ask(5), flush=True)
time.sleep(600)
"""
GROUPS = """
import sys, ray
from ray.util import placement_group_table

ray.init(sys.argv[1], log_to_driver=False)
print(sorted(each["state"] for each in placement_group_table().values()))
"""


@pytest.mark.slow
def test_what_was_asked_of_the_autoscaler_goes_with_a_driver_that_is_killed(
    workplace: Workplace, head: str
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", ASKING, head],
        env=workplace.environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "0 2\n"
    assert asked_of(workplace, head, GROUPS) == "['PENDING', 'PENDING']"
    driver.kill()
    driver.wait()
    eventually(
        lambda: asked_of(workplace, head, GROUPS) == "['REMOVED', 'REMOVED']", "nothing is asked for any more"
    )


@pytest.mark.slow
def test_one_process_can_have_a_ray_of_its_own_again(workplace: Workplace) -> None:
    """Ray reads its token once in a process: a second one of another token would let nobody in."""
    code = (
        "from sweeps.session import session\n"
        "for _ in range(2):\n"
        "    with session(None) as found:\n"
        "        print(len(found.machines()))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=workplace.environment, capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1", "1"]
