"""What each technique costs a step, beside plain LoRA of the same run: time, memory, trainable parameters.

    python benchmarks/technique_cost.py --model FOLDER --data FOLDER

All train on the same real batches, in turns in one process on one thread; a technique's time is the median
over the turns of its ratio to LoRA in the same turn. Peak memory is that of a process of its own while it
trains a few steps (Linux tells). Below: a pack of mixed techniques against packs of like ones, and a linear
probe over stored features against the same probe through the backbone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from benchmarks.common import describe_machine, table
from mtbert.bert import Backbone
from mtbert.configuration import merged, parse
from mtbert.counts import count
from mtbert.data.load import load
from mtbert.data.tokenise import TokenisedData, tokenise
from mtbert.group import Group
from mtbert.member import Member, initial_state
from mtbert.run import Run
from mtbert.trainer import Trainer
from mtbert.weights import BaseModel, load_base

LORA: dict[str, Any] = {"kind": "lora", "rank": 8, "targets": ["query", "value"]}
JOINT = {"training": {"schedule": {"kind": "joint"}}}
PAL = {"hidden": 204, "heads": 12}
TECHNIQUES: Mapping[str, Mapping[str, Any]] = {
    "LoRA": {"low_rank": LORA},
    "linear probe": {},
    "LoRA, one for each task": {"low_rank": {**LORA, "sharing": "per_task"}},
    "DoRA": {"low_rank": {**LORA, "kind": "dora"}},
    "orthogonal": {"low_rank": {**LORA, "kind": "orthogonal"}},
    "LoRA, all linear": {"low_rank": {**LORA, "targets": ["all_linear"]}},
    "LoRA and biases": {"low_rank": LORA, "biases": "trained"},
    "low-rank PAL": {"parallel": {"form": "low_rank", "hidden": 100, "projections": "per_layer"}},
    "PAL": {"parallel": {**PAL, "projections": "per_layer"}},
    "PAL, shared projections": {"parallel": PAL},
    "PAL beside attention": {"parallel": {**PAL, "place": "attention"}},
    "LoRA and SMART, noise alone": {"low_rank": LORA, "smart": {"ascent_steps": 0}},
    "LoRA and SMART, one ascent": {"low_rank": LORA, "smart": {"ascent_steps": 1}},
    "LoRA and SMART, Bregman too": {"low_rank": LORA, "smart": {"bregman": {}}},
    "LoRA, uncertainty": {"low_rank": LORA, "weighting": {"kind": "uncertainty"}},
    "LoRA, Huq-Pervin": {"low_rank": LORA, "weighting": {"kind": "huq_pervin"}},
    "LoRA, joint": merged({"low_rank": LORA}, JOINT),
    "LoRA, joint, gradient surgery": merged(
        {"low_rank": LORA, "weighting": {"kind": "gradient_surgery"}}, JOINT
    ),
    "full fine-tuning": {"backbone": "trained"},
}
MIXED = ("LoRA", "DoRA", "PAL, shared projections", "LoRA and SMART, one ascent")
DATA_LIMIT = 4000
Step = Callable[[], object]


class Bench:
    """One base model and data, and groups of runs over them."""

    def __init__(self, model: str, data: str, dropout: float) -> None:
        self.base: BaseModel = load_base(model)
        dataset = load(data, limit=DATA_LIMIT)
        self.data: TokenisedData = tokenise(dataset, self.base.tokenizer(), splits=("train", "dev"))
        self.dropout = dropout
        self.backbone = Backbone.from_arrays(self.base.config, self.base.arrays)

    def run(self, changes: Mapping[str, Any], seed: int, **training: Any) -> Run:
        """A run of these changes, as long as it takes."""
        rates = {"backbone": self.dropout, "heads": self.dropout}
        usual = {"training": {"steps": 1_000_000, "schedule": {"kind": "proportional"}, "dropout": rates}}
        configuration = parse(merged(merged(usual, changes), {"training": training}))
        return Run(configuration, seed, self.data.fingerprint, self.base.fingerprint)

    def group(self, *names: str) -> Group:
        """One run of each of these techniques in one pack."""
        longest = self.base.config.max_position_embeddings
        group = Group(self.backbone, self.data, longest, "cpu")
        sizes = {task: len(self.data.splits[task, "train"].ids) for task in self.data.tasks}
        for seed, name in enumerate(names):
            run = self.run(TECHNIQUES[name], seed)
            member = Member(run, self.data.tasks, sizes)
            group.admit(member, initial_state(run, self.base.config, member.tasks))
        return group


def seconds(work: Step, times: int) -> float:
    """How long so many repetitions take."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - began


def ratios(
    steppers: Mapping[str, Callable[[], object]], first: str, turns: int, steps: int
) -> dict[str, float]:
    """Each one's time over that of `first`: the median over turns in which all have theirs."""
    found: dict[str, list[float]] = {name: [] for name in steppers}
    for step in steppers.values():
        step()
    for _ in range(turns):
        took = {name: seconds(step, steps) for name, step in steppers.items()}
        for name in steppers:
            found[name].append(took[name] / took[first])
    return {name: median(values) for name, values in found.items()}


def memory_of(name: str, arguments: argparse.Namespace) -> int:
    """The most bytes that a process held while it trained this technique for a few steps."""
    command = [sys.executable, __file__, "--model", arguments.model, "--data", arguments.data, "--only", name]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(output)["peak"])


def technique_rows(bench: Bench, arguments: argparse.Namespace) -> list[list[str]]:
    """A row for each technique."""
    groups = {name: bench.group(name) for name in TECHNIQUES}
    relative = ratios(
        {n: group.step for n, group in groups.items()}, "LoRA", arguments.turns, arguments.steps
    )
    peaks = {name: memory_of(name, arguments) for name in TECHNIQUES}
    rows = []
    for name, changes in TECHNIQUES.items():
        run = bench.run(changes, 0)
        trainable = count(run.configuration, bench.base.config, bench.data.tasks).trainable
        rows.append([name, f"{relative[name]:.2f}", f"{peaks[name] / 1e6:,.0f}", f"{trainable:,}"])
    return rows


def mixed_row(bench: Bench, arguments: argparse.Namespace) -> list[str]:
    """A pack of two of each of several techniques, against a pack of two for each, one after another."""
    mixed = bench.group(*(name for name in MIXED for _ in range(2)))
    like = [bench.group(name, name) for name in MIXED]

    def apart() -> None:
        for group in like:
            group.step()

    found = ratios({"apart": apart, "mixed": mixed.step}, "apart", arguments.turns, arguments.steps)
    return [f"two each of {', '.join(MIXED)}", f"{found['mixed']:.2f}"]


def probe_row(bench: Bench, arguments: argparse.Namespace) -> list[str]:
    """A probe's epochs over stored features, against the same run through the backbone."""
    still = {"dropout": {"backbone": 0.0, "heads": bench.dropout}}
    examples = sum(len(bench.data.splits[task, "train"].ids) for task in bench.data.tasks)
    steps = examples // 16
    trainer = Trainer(lambda _: bench.backbone, bench.data)
    run = bench.run({}, 0, steps=3 * steps, **still)
    trainer.admit(run)
    (group,) = {id(group): group for group in trainer._of_run.values()}.values()
    first, later = seconds(group.step, steps), seconds(group.step, steps)
    through = bench.group("linear probe")
    backbone = seconds(through.step, arguments.steps * 4) / (arguments.steps * 4) * steps
    return [f"an epoch of {steps:,} steps", f"{first:.1f}", f"{later:.2f}", f"{backbone:.1f}",
            f"{backbone / later:.0f}"]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="demo")
    add("--data", default="demo")
    add("--dropout", type=float, default=0.1)
    add("--turns", type=int, default=7, help="how often each technique has its turn")
    add("--steps", type=int, default=8, help="steps a turn")
    add("--only", help="train this one alone for a few steps and print its peak memory")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    # gradients of stacked slots are views with gaps between them, which is meant
    warnings.filterwarnings("ignore", message="grad and param do not obey the gradient layout")
    bench = Bench(arguments.model, arguments.data, arguments.dropout)
    if arguments.only is not None:
        group = bench.group(arguments.only)
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of reading the data
        seconds(group.step, 4 * arguments.steps)
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        print(json.dumps({"peak": int(status["VmHWM"].split()[0]) * 1024}))
        return 0
    rows = partial(technique_rows, bench, arguments)
    print(f"{arguments.model}, float32, dropout {arguments.dropout}, batches of 16; ", end="")
    print(f"{describe_machine(['torch'])}\n")
    print(table(["technique", "time of a step, LoRA = 1", "peak memory, MB", "trainable"], rows()))
    print("\n" + table(["pack", "time of a step, the same packed by technique = 1"],
                       [mixed_row(bench, arguments)]))  # fmt: skip
    header = ["linear probe", "first epoch, s", "a later one, s", "through the backbone, s", "times as fast"]
    print("\n" + table(header, [probe_row(bench, arguments)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
