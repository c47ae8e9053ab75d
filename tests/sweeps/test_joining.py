"""Joining a Ray that runs, instead of starting one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

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


@pytest.fixture
def head(workplace: Workplace) -> Iterator[str]:
    """A Ray that `ray start` started, with three cores; its address file lies in RAY_TMPDIR."""
    ray = os.path.join(os.path.dirname(sys.executable), "ray")
    command = [ray, "start", "--head", "--block", "--port=0", "--num-cpus=3", "--include-dashboard=false"]
    workplace.environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        command, env=workplace.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    file = os.path.join(workplace.environment["RAY_TMPDIR"], "ray", "ray_current_cluster")
    eventually(lambda: os.path.exists(file) and running_ray(None, workplace.environment), "Ray starts")
    with open(file, encoding="utf-8") as text:
        yield text.read()
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    for child in children:
        child.kill()
    process.wait()


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
    def states() -> str:
        asked = [sys.executable, "-c", GROUPS, head]
        return subprocess.check_output(
            asked, env=workplace.environment, cwd=ROOT, text=True, stderr=subprocess.DEVNULL
        ).strip()

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
    assert states() == "['PENDING', 'PENDING']"
    driver.kill()
    driver.wait()
    eventually(lambda: states() == "['REMOVED', 'REMOVED']", "nothing is asked for any more")


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
