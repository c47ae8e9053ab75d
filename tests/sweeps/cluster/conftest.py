"""Hosts, and a cluster on them that stays up for a module's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeps.cluster.cluster import Cluster, local
from tests.sweeps.cluster.hosts import Hosts


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """A head and two workers that are up."""
    folder = Path(tempfile.mkdtemp(prefix="h", dir="/tmp"))  # names of sockets are short
    made = Hosts(folder, ["head", "w1", "w2"])
    try:
        for name in made.addresses:
            made.boot(name)
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Cluster:
    """Ray on all of them."""
    made = Cluster(hosts, "head", local(hosts, "head", ["w1", "w2"]))
    made.up(nodes=3)
    return made
