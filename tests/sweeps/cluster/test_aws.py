"""`ray up` of the shipped file for AWS, with moto for EC2 and hosts of the tests' own for its machines."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.cluster.cluster import Cluster, shipped
from tests.sweeps.cluster.grids import come_to, ended_well, half_way
from tests.sweeps.cluster.hosts import Hosts, missing
from tests.sweeps.conftest import eventually

WHY_NOT = missing() or (None if importlib.util.find_spec("moto") else "EC2 needs moto, of the extra `test`")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
GRID = ("--ranks", "1,2,4", "--seeds", "4", "--steps", "300")  # the sweep outlives the coming of a new worker
RUNS = 12
MACHINES = 8
"""A head and workers; moto gives each instance the next address."""
NETWORK, FIRST, PORT = "172.31.0", 4, 5055  # of the default network's first zone
CLOUD = {
    "AWS_ENDPOINT_URL": f"http://{NETWORK}.1:{PORT}",
    "AWS_DEFAULT_REGION": "us-west-2",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "y",
    "AWS_EC2_METADATA_DISABLED": "true",
}
DESCRIBE = """
import boto3, json
found = boto3.client("ec2").describe_instances()["Reservations"]
print(json.dumps([each for reservation in found for each in reservation["Instances"]], default=str))
"""
TERMINATE = """
import boto3, sys
boto3.client("ec2").terminate_instances(InstanceIds=sys.argv[1:])
"""


class Cloud:
    """EC2 as moto plays it; each instance is one of the hosts, the one that has its address."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        log = hosts.folder / "moto.txt"
        told = {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
        self._server = hosts.start("moto_server", "-H", hosts.laptop, "-p", str(PORT), log=log, extra=told)
        eventually(lambda: "Running on" in log.read_text(), "moto answers")

    def running(self) -> list[dict[str, Any]]:
        """The instances that are up, as EC2 describes them."""
        found = json.loads(self.hosts.run(sys.executable, "-c", DESCRIBE))
        return [each for each in found if each["State"]["Name"] == "running"]

    def workers(self) -> list[dict[str, Any]]:
        return [each for each in self.running() if tags(each)["ray-node-type"] == "worker"]

    def take(self, instance: dict[str, Any]) -> None:
        """As when a spot instance is wanted elsewhere: its machine is gone, and EC2 says so."""
        self.hosts.run(sys.executable, "-c", TERMINATE, instance["InstanceId"])
        self.hosts.power_off(self.host(instance))

    def host(self, instance: dict[str, Any]) -> str:
        """The name of the host that the instance is."""
        names = {address: name for name, address in self.hosts.addresses.items()}
        return names[instance["PrivateIpAddress"]]


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))  # names of sockets are short
    names = ["head", *(f"w{at}" for at in range(1, MACHINES))]
    hosts = Hosts(folder, names, NETWORK, FIRST, CLOUD)
    try:
        for name in names:
            hosts.boot(name)
        yield Cloud(hosts)
    finally:
        hosts.close()
        shutil.rmtree(folder)


def aws(hosts: Hosts) -> dict[str, Any]:
    """The shipped file, two workers of a core at most, whose head asks moto."""
    config = shipped("cluster.yaml", hosts)
    config |= {"max_workers": 2, "idle_timeout_minutes": 0.2}
    config["provider"] |= {"availability_zone": "us-west-2a", "use_internal_ips": True}
    for name, of_type in config["available_node_types"].items():
        of_type["node_config"]["KeyName"] = "mine"
        if name != config["head_node_type"]:
            of_type |= {"resources": {"CPU": 1}, "max_workers": 2}
            of_type["node_config"]["InstanceType"] = "m5.large"  # without a GPU, as the hosts are
    told = "".join(f"export {key}={value}; " for key, value in CLOUD.items())
    config["head_start_ray_commands"][-1] = told + config["head_start_ray_commands"][-1]
    return config


def test_spot_workers_come_for_a_sweep_are_replaced_and_go(cloud: Cloud) -> None:
    cluster = Cluster(cloud.hosts, "head", aws(cloud.hosts))
    cluster.up(nodes=1)
    assert [tags(each)["ray-node-type"] for each in cloud.running()] == ["head"]
    said = cloud.hosts.run(*cluster.sweep("undisturbed", *GRID))
    assert "No node has room for a trial; waiting for room for 2" in said
    undisturbed = come_to(cluster, "undisturbed", RUNS)
    process = cluster.start("taken", *GRID)
    half_way(cluster, "taken")
    before = cloud.workers()
    assert {each["InstanceLifecycle"] for each in before} == {"spot"}
    cloud.take(before[0])
    assert "2 at once from now on" in ended_well(cluster, process, "taken").split("lost with its worker")[1]
    assert come_to(cluster, "taken", RUNS) == undisturbed
    used = {(run.ended or {})["host"] for run in cluster.state("taken").runs.values()}
    sys.stdout.write(f"{cloud.host(before[0])} was taken; runs ended on {sorted(used)}\n")
    assert used - set(map(cloud.host, before)), "nothing took its place"
    eventually(lambda: not cloud.workers(), "idle workers are given back")
    cluster.down()
    assert cloud.running() == []
