"""What the head of a cluster pays for a run and for an evaluation, from a hundred runs to ten thousand.

    python benchmarks/cluster_scale.py

A grid of runs that train nothing and only report, on as many pretend nodes as are asked for: raylets of one
core each on this machine, joined as a cluster's are, with a head that has no cores for trials. Each size is
swept twice, with one evaluation a run and with several: what the one costs over the other is the price of
evaluations. Milliseconds are of processor, of the driver and of the keeper, which both live on the head; on a
machine as busy as this one they say more than the clock does. `again` is the same command once more, with
nothing to train.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from ray.cluster_utils import Cluster
from rich.console import Console

from analysis.store import read
from benchmarks.common import apart, describe_machine, table
from benchmarks.scheduler_overhead import launched
from benchmarks.usage import Watched, left_in, peak_memory, processor_seconds
from sweeps.settings import Settings

MB = 1e6
STORE = 80 * 2**20
"""Bytes of each node's object store."""


class Swept(NamedTuple):
    """What a sweep took.

    Attributes:
        seconds: from its command's start to its end, by the clock.
        driver, keeper: seconds of processor.
        driver_memory, keeper_memory: bytes at most.
        disk: bytes that are left.
        again: seconds of processor of the same command with nothing to train.
        reading: seconds of processor to read the ledger.
    """

    seconds: float
    driver: float
    keeper: float
    driver_memory: int
    keeper_memory: int
    disk: int
    again: float
    reading: float


def swept(runs: int, evaluations: int, pack: int, address: str, cluster: int) -> Swept:
    """Sweeps so many runs; to be called in a process of its own.

    Args:
        cluster: id of the process below which the nodes are.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(folder, command="", pack=pack, address=address)
        began, before = time.perf_counter(), _processor()
        with Watched("Keeper", cluster) as keeper:
            _sweep(settings, runs, evaluations)
        seconds, driver, memory = time.perf_counter() - began, _processor() - before, peak_memory()
        before = _processor()
        _sweep(settings, runs, evaluations)
        again, before = _processor() - before, _processor()
        found = read(folder)
        reading = _processor() - before
        assert len(found.runs) == runs
        disk, _ = left_in(Path(folder))
    return Swept(seconds, driver, keeper.processor, memory, keeper.peak, disk, again, reading)


def _sweep(settings: Settings, runs: int, evaluations: int) -> None:
    said = io.StringIO()
    console = Console(file=said, highlight=False)
    code = launched("grid", runs, evaluations, settings, console).run()
    if code != 0:
        raise SystemExit(f"{said.getvalue()}ended with code {code}, expected 0")


def _processor() -> float:
    return processor_seconds(psutil.Process())


def row(runs: int, evaluations: int, few: Swept, many: Swept) -> list[str]:
    """A size's: of the sweep with several evaluations where it is not said."""
    cells = [f"{runs:,}", f"{many.seconds:.0f}", f"{runs * evaluations / many.seconds:.0f}"]
    each = (few.driver, many.driver, few.keeper, many.keeper)
    cells += [f"{1000 * seconds / runs:.1f}" for seconds in each]
    cells += [f"{each / MB:,.0f}" for each in (many.driver_memory, many.keeper_memory)]
    return [*cells, f"{many.disk / runs / 1000:.1f}", f"{many.again:.1f}", f"{many.reading:.1f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", default="100,1000,10000", help="sizes of sweeps (%(default)s)")
    parser.add_argument("--evaluations", type=int, default=9, help="of each run, beside 1 (%(default)s)")
    parser.add_argument("--nodes", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--pack", type=int, default=1, help="runs of a trial (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.evaluations < 2 or arguments.nodes < 1:
        parser.error("expected --evaluations of at least 2, and --nodes of at least 1")
    sizes = [int(each) for each in arguments.runs.split(",")]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False},
    )
    rows = []
    try:
        for _ in range(arguments.nodes):
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
        cluster.wait_for_nodes()
        for runs in sizes:
            found = []
            for evaluations in (1, arguments.evaluations):
                print(f"{runs:,} runs, {evaluations} evaluation(s) each", file=sys.stderr)
                found.append(apart(swept, runs, evaluations, arguments.pack, cluster.address, os.getpid()))
            rows.append(row(runs, arguments.evaluations, *found))
    finally:
        cluster.shutdown()
    counts = ("1 evaluation", f"{arguments.evaluations} evaluations")
    print(f"{arguments.nodes} nodes, packs of {arguments.pack}, runs of {' and of '.join(counts)}\n")
    header = ["runs", "whole, s", "evaluations/s"]
    header += [f"{who}, ms a run of {count}" for who in ("driver", "keeper") for count in counts]
    header += ["driver, MB", "keeper, MB", "disk, kB a run", "again, s", "reading, s"]
    print(table(header, rows))
    print(f"\n{describe_machine(['ray'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
