"""What a thousand runs that do nothing cost, here and under plain Ray Tune: time, memory, disk.

    python benchmarks/scheduler_overhead.py

Every run is evaluated eight times and trains nothing. Here: a grid, and searches by random points and by
kriging, all through the driver, the searcher, the keeper and reused workers. There: random points and
OptunaSearch, with Tune's default loggers and without any. Each side is a process of its own. Runs per
second count from the first ending to the last; the whole is from Ray's start to its end. The driver's
memory is its process's peak; the keeper, here a process too, holds what Tune's driver holds itself.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console

from analysis.store import read
from benchmarks.common import apart, describe_machine, table
from benchmarks.fake import IdleMaterial
from benchmarks.usage import Watched, left_in, peak_memory
from sweeps.declare import Grid, Search
from sweeps.launch import Launch
from sweeps.placement import usable_cores
from sweeps.search.budget import Budget
from sweeps.search.launch import SearchLaunch
from sweeps.search.space import parse_space
from sweeps.search.study import Sampler
from sweeps.settings import Settings

MB = 1e6
SPACE = {"low_rank.rank": {"low": 1, "high": 64}, "low_rank.alpha": {"low": 0.25, "high": 8, "log": True}}
SEARCHES = {"search, random points": Sampler("random"), "search, kriging": Sampler("kriging")}
PEERS = {
    "Ray Tune, random points": ("none", True),
    "Ray Tune, random points, no loggers": ("none", False),
    "Ray Tune, OptunaSearch": ("optuna", True),
    "Ray Tune, OptunaSearch, no loggers": ("optuna", False),
}


class Cost(NamedTuple):
    """What a side's runs cost.

    Attributes:
        seconds: of everything; `ends` are the moments at which runs ended, in seconds since 1970.
        memory: peak bytes of the driver's process; `keeper`, of this project's keeper.
        disk: bytes of all that is left, `files` how many they are.
    """

    seconds: float
    ends: list[float]
    memory: int
    keeper: int
    disk: int
    files: int

    def row(self, name: str) -> list[str]:
        """The table's."""
        span = max(self.ends) - min(self.ends)  # Tune's moments are whole seconds: few runs may end in one
        speed = f"{(len(self.ends) - 1) / span:.1f}" if span > 0 else ""
        cells = [name, f"{self.seconds:.1f}", speed, f"{self.memory / MB:,.0f}"]
        keeper = f"{self.keeper / MB:,.0f}" if self.keeper else ""
        return [*cells, keeper, f"{self.disk / MB:.1f}", f"{self.files:,}"]


def here(name: str, runs: int, evaluations: int, at_once: int) -> Cost:
    """A sweep of this project; to be called in a process of its own."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(folder, command="", max_concurrent=at_once, address="local")
        launch = launched(name, runs, evaluations, settings, Console(file=said, highlight=False))
        began = time.perf_counter()
        with Watched("Keeper") as keeper:
            code = launch.run()
        seconds = time.perf_counter() - began
        if code != 0:
            raise SystemExit(f"{said.getvalue()}{name}: ended with code {code}, expected 0")
        ends = [run.ending.time for run in read(folder).runs.values() if run.ending is not None]
        return Cost(seconds, ends, peak_memory(), keeper.peak, *left_in(Path(folder)))


def launched(name: str, runs: int, evaluations: int, settings: Settings, console: Console) -> Launch:
    """A grid over seeds, or a search of that name."""
    base = {
        "low_rank": {"kind": "lora"},
        "training": {"steps": evaluations},
        "evaluation": {"every": 1},
    }
    material = IdleMaterial(evaluations)
    if name not in SEARCHES:
        grid = Grid("overhead", base, {"low_rank.rank": (8,)}, runs)
        return Launch(grid, material, settings, console)
    search = Search(
        name="overhead",
        base=base,
        space=parse_space(SPACE),
        budget=Budget(points=runs),
        sampler=SEARCHES[name],
        top_k=1,
        seeds_at_end=1,
    )
    return SearchLaunch(search, material, settings, console)


def there(name: str, runs: int, evaluations: int, at_once: int) -> Cost:
    """The same under plain Ray Tune."""
    searcher, loggers = PEERS[name]
    with tempfile.TemporaryDirectory() as folder:
        storage, answer = Path(folder, "storage"), Path(folder, "answer.json")
        plan = {"runs": runs, "evaluations": evaluations, "at_once": at_once, "searcher": searcher}
        plan |= {"folder": str(storage), "answer": str(answer)}
        (file := Path(folder, "plan.json")).write_text(json.dumps(plan), encoding="utf-8")
        own = {} if loggers else {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("peer_scheduler.py")), str(file)]
        environment = {**os.environ, **own}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(
                f"{done.stdout}{done.stderr}{name}: ended with code {done.returncode}, expected 0"
            )
        found = json.loads(answer.read_text(encoding="utf-8"))
        return Cost(found["seconds"], found["ends"], found["memory"], 0, *left_in(storage))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="of each side (%(default)s)")
    parser.add_argument("--evaluations", type=int, default=8, help="of each run (%(default)s)")
    parser.add_argument("--at-once", type=int, default=usable_cores(), help="runs at once (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.runs < 2 or arguments.evaluations < 1 or arguments.at_once < 1:
        parser.error("expected --runs of at least 2, --evaluations and --at-once of at least 1")
    sides: dict[str, Callable[..., Cost]] = dict.fromkeys(["grid", *SEARCHES], here)
    sides |= dict.fromkeys(PEERS, there)
    rows = []
    for name, side in sides.items():
        print(f"{name}: running", file=sys.stderr)
        cost = apart(side, name, arguments.runs, arguments.evaluations, arguments.at_once)
        rows.append(cost.row(f"{'this project, ' if side is here else ''}{name}"))
    print(f"{arguments.runs:,} runs, {arguments.evaluations} evaluations each, {arguments.at_once} at once\n")
    header = ["", "whole, s", "runs/s", "driver, MB", "keeper, MB", "left on disk, MB", "files"]
    print(table(header, rows))
    print(f"\n{describe_machine(['ray', 'optuna'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
