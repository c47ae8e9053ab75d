"""Hosts, and a cluster on them that stays up for the tests of all modules."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sweeps.cluster.cluster import Cluster, local
from tests.sweeps.cluster.hosts import Hosts


@contextmanager
def three_hosts() -> Iterator[Hosts]:
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


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Hosts on which nothing was started."""
    with three_hosts() as made:
        yield made


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Ray on all of them; each test leaves it whole."""
    with three_hosts() as hosts:
        made = Cluster(hosts, "head", local(hosts, "head", ["w1", "w2"]))
        made.up(nodes=3)
        yield made
