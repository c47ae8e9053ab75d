"""What a run costs beside its training: from "config chosen" to "first step", and sweeps of idle runs.

    python benchmarks/run_overhead.py --model demo,FOLDER

A configuration is chosen when the ledger has its `begin`. All goes through the real machinery: driver,
searcher, keeper, and a worker that later runs take over from the first. Memory is what the worker's
process alone holds after a first step, the last run's for the later ones; what it shares is left out.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from rich.console import Console

from analysis.store import RunState, read
from benchmarks.common import apart, describe_machine, table
from benchmarks.fake import IdleMaterial, WatchedMaterial
from mtbert.data.examples import Dataset
from mtbert.inputs import Inputs
from mtbert.weights import read_config, resolve
from sweeps.declare import Grid
from sweeps.launch import Launch
from sweeps.publish import Material
from sweeps.settings import Settings

DEV_EXAMPLES = 16
"""Of each task; evaluating is not what is measured."""
MB = 1e6


class ShortDev(Inputs):
    """A model and data with little to evaluate on."""

    def dataset(self) -> Dataset:
        whole = super().dataset()
        short = {key: of[:DEV_EXAMPLES] if key[1] == "dev" else of for key, of in whole.examples.items()}
        return replace(whole, examples=short)


class Start(NamedTuple):
    """One run's way to its first step, in seconds.

    Attributes:
        chosen: from its configuration's choice until its first step begins; `done`, until that step ends.
        after: from the end of the run before it until its first step begins; 0 for the first run.
        memory: bytes of the worker's own; `pid` is its process.
    """

    chosen: float
    done: float
    after: float
    memory: int
    pid: int


def sweep(
    material: Material, base: Mapping[str, Any], seeds: int, results: str, at_once: int | None = None
) -> tuple[list[RunState], float]:
    """The runs of a sweep over seeds, in the order in which they were given out, and its whole seconds."""
    said = io.StringIO()
    grid = Grid("overhead", base, {"low_rank.rank": (8,)}, seeds)
    settings = Settings(results, command="", max_concurrent=at_once, address="local")
    began = time.perf_counter()
    code = Launch(grid, material, settings, Console(file=said, highlight=False)).run()
    seconds = time.perf_counter() - began
    if code != 0:
        raise SystemExit(f"{said.getvalue()}the sweep ended with code {code}, expected 0")
    return sorted(read(results).runs.values(), key=lambda run: run.begun or 0.0), seconds


def starts(inputs: Inputs, runs: int) -> list[Start]:
    """The starts of as many runs, one after the other in one worker; the first one's included."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder, "notes")
        base = {"low_rank": {"kind": "lora"}, "training": {"steps": 2}, "evaluation": {"train_limit": 0}}
        states, _ = sweep(WatchedMaterial(inputs, str(notes)), base, runs, f"{folder}/results", at_once=1)
        lines = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    noted = {line["run_id"]: line for line in lines}
    found = []
    before = None
    for state in states:
        note, chosen, ending = noted[state.run_id], state.begun, state.ending
        assert chosen is not None  # the sweep ended with code 0
        assert ending is not None
        begins = note["admitted"] + ending.record["seconds_startup"]
        after = 0.0 if before is None else begins - before
        found.append(Start(begins - chosen, note["stepped"] - chosen, after, note["memory"], note["pid"]))
        before = ending.time
    if len({start.pid for start in found}) > 1:
        raise SystemExit("the worker was not reused: every run must start in the first one's process")
    return found


def rows_of(model: str, found: Sequence[Start]) -> list[list[str]]:
    """The first run's row and the later ones'."""
    config = read_config(resolve(model))
    name = f"{model} ({config.num_hidden_layers} layers of {config.hidden_size})"
    rows = []
    for what, part in (("first run", found[:1]), (f"median of {len(found) - 1} later runs", found[1:])):
        slowest = f"{max(start.chosen for start in part):.3f}"
        chosen, done, after = (median(column) for column in list(zip(*part, strict=True))[:3])
        times = [f"{chosen:.3f}", slowest, f"{done:.3f}", f"{after:.3f}" if after else ""]
        rows.append([f"{name}, {what}", *times, f"{part[-1].memory / MB:,.0f}", ""])
    return rows


def idle_row(runs: int) -> list[str]:
    """A sweep of runs that do nothing: runs per second from the first ending to the last."""
    with tempfile.TemporaryDirectory() as folder:
        base = {"low_rank": {"kind": "lora"}, "training": {"steps": 1}}
        states, seconds = sweep(IdleMaterial(), base, runs, folder)
    ends = sorted(state.ending.time for state in states if state.ending is not None)
    speed = (len(ends) - 1) / (ends[-1] - ends[0])
    return [f"{runs} runs that do nothing, {seconds:.1f} s in all", *[""] * 5, f"{speed:.1f}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo", help="one or more, separated by commas")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--runs", type=int, default=10, help="started one after the other, at least 2")
    parser.add_argument("--idle-runs", type=int, default=200, help="of the sweep that does nothing")
    arguments = parser.parse_args(argv)
    if min(arguments.runs, arguments.idle_runs) < 2:
        parser.error("--runs, --idle-runs: expected at least 2")
    torch.set_num_threads(1)
    rows = []
    for model in arguments.model.split(","):
        rows += rows_of(model, apart(starts, ShortDev(model, arguments.data), arguments.runs))
    rows.append(apart(idle_row, arguments.idle_runs))
    header = [
        "",
        "config chosen to first step, s",
        "slowest, s",
        "to the end of that step, s",
        "end of the run before to first step, s",
        "memory of the worker, MB",
        "runs/s",
    ]
    print(table(header, rows))
    print(f"\n{describe_machine(['torch', 'ray'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
