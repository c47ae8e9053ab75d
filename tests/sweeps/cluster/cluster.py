"""A cluster on hosts of the tests' own, from the shipped file for one's own machines, and sweeps on it."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from analysis.store import State, read
from tests.sweeps.cluster.hosts import Hosts
from tests.sweeps.conftest import ROOT, eventually

NODES = (
    "import ray; ray.init('auto', log_to_driver=False, logging_level='CRITICAL'); "
    "print('alive:', sum(node['Alive'] for node in ray.nodes()))"
)


SMALL = "--object-store-memory=200000000"


def local(hosts: Hosts, head: str, workers: Sequence[str]) -> dict[str, Any]:
    """The shipped file for one's own machines, with these hosts in it."""
    config = shipped("cluster-local.yaml", hosts)
    config["provider"]["head_ip"] = hosts.addresses[head]
    config["provider"]["worker_ips"] = [hosts.addresses[name] for name in workers]
    return config


def shipped(name: str, hosts: Hosts) -> dict[str, Any]:
    """A shipped file for small hosts that take the tests' key, and have what they run from already."""
    config: dict[str, Any] = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    config["cluster_name"] = f"test-{hosts.folder.name}"  # by which ray up keeps its connections apart
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    installed = "grep -q PYTHONPATH ~/.bashrc || echo 'export PYTHONPATH=$HOME/mtbert' >> ~/.bashrc"
    config["setup_commands"] = [each for each in config["setup_commands"] if "RAY_AUTH_MODE" in each]
    config["setup_commands"].append(installed)
    for key, flags in (("head", SMALL), ("worker", f"--num-cpus=1 {SMALL}")):
        commands = config[f"{key}_start_ray_commands"]
        config[f"{key}_start_ray_commands"] = [
            each.replace("ray start", f"ray start {flags}") for each in commands
        ]
    return config


class Cluster:
    """A Ray that `ray up` starts from a file, and sweeps on it."""

    def __init__(self, hosts: Hosts, head: str, config: Mapping[str, Any]) -> None:
        self.hosts, self.head = hosts, head
        self.file = hosts.folder / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        hosts.run("ray", "get-auth-token", "--generate")

    def up(self, nodes: int) -> str:
        """`ray up`, and so many nodes there: its exit code does not tell."""
        said = self.hosts.run("ray", "up", "-y", str(self.file))
        self.has(nodes)
        return said

    def down(self) -> str:
        return self.hosts.run("ray", "down", "-y", str(self.file))

    def has(self, nodes: int) -> None:
        """Waits until so many nodes live."""
        eventually(lambda: self.nodes() == nodes, f"{nodes} nodes live")

    def nodes(self) -> int | None:
        """How many nodes live, as the GCS says; null where nobody answers."""
        said = re.search(r"alive: (\d+)", self.hosts.on(self.head, f'python -c "{NODES}"', code=None))
        return int(said[1]) if said else None

    def sweep(self, results: str, *flags: str) -> list[str]:
        """The command that runs the demo sweep on the head."""
        command = f"cd ~/mtbert && python sweeps/lora_grid.py --results ~/{results} {' '.join(flags)}"
        return self.hosts.ssh(self.head, command)

    def start(self, results: str, *flags: str) -> subprocess.Popen[bytes]:
        return self.hosts.start(*self.sweep(results, *flags), log=self.hosts.folder / f"{results}.txt")

    def fetched(self, results: str) -> Path:
        """The results folder, brought home as it stands."""
        target = self.hosts.folder / "fetched" / results
        target.mkdir(parents=True, exist_ok=True)
        self.hosts.run("ray", "rsync-down", str(self.file), f"/root/{results}/", f"{target}/")
        return target

    def state(self, results: str) -> State:
        return read(self.fetched(results))


def records(results: Path) -> list[dict[str, Any]]:
    """What was written of runs, in the order of each keeper."""
    segments = sorted((results / "ledger" / "segments").iterdir())
    lines = [line for segment in segments for line in segment.read_text(encoding="utf-8").splitlines()]
    return [record for record in map(json.loads, lines) if "run_id" in record]


def endings(results: Path) -> Counter[str]:
    """How many endings of each run were written, by whomever."""
    return Counter(record["run_id"] for record in records(results) if record["kind"] == "end")


def written_after_the_next_begins(results: Path) -> list[dict[str, Any]]:
    """What an attempt wrote of its run when a later one had begun it: the results of one keeper."""
    begun: dict[str, int] = {}
    found = []
    for record in records(results):
        if record["kind"] == "begin":
            begun[record["run_id"]] = record["attempt"]
        elif record.get("attempt", 0) < begun.get(record["run_id"], 0) and "attempt" in record:
            found.append(record)
    return found
