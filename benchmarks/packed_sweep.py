"""Wall-clock of a grid of LoRA runs on one device: in packs, one by one, and several processes at once.

    python benchmarks/packed_sweep.py --precision bfloat16

Each side trains the same runs in processes of its own, whose start is counted. A pack is rolling: the next
run takes the place of one that has ended. No side uses Ray: runs that would have a fraction of the device
each are processes that share it, and have an equal part of the runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import apart, describe_machine, table
from benchmarks.packed_throughput import base_of, short_sentences
from mtbert.bert import Backbone
from mtbert.configuration import parse
from mtbert.records import Ended
from mtbert.run import Run
from mtbert.trainer import Trainer

RANKS, ALPHAS, SEEDS = (1, 2, 4, 8), (4, 8, 16, 32), 4
EXAMPLES = 1000


@dataclass(frozen=True)
class Job:
    """What all sides train, and on what."""

    model: str
    precision: str
    steps: int
    device: str

    def runs(self) -> list[Run]:
        """The grid's runs, an evaluation in the middle and one at the end."""
        return [
            Run(
                parse(
                    {
                        "precision": self.precision,
                        "low_rank": {"rank": rank, "alpha": alpha},
                        "training": {"steps": self.steps},
                        "evaluation": {"every": self.steps // 2},
                    }
                ),
                seed,
                "random",
                "random",
            )
            for rank in RANKS
            for alpha in ALPHAS
            for seed in range(SEEDS)
        ]

    def trainer(self) -> Trainer:
        """A trainer over random weights of the model's size, and random sentences."""
        if self.device == "cpu":
            torch.set_num_threads(1)
        config, arrays = base_of(self.model)
        data = short_sentences(config.vocab_size, EXAMPLES)
        return Trainer(partial(Backbone.from_arrays, config, arrays, device=self.device), data, self.device)


def train(job: Job, numbers: Sequence[int], at_once: int) -> dict[int, float | None]:
    """Train some of the job's runs, so many at once; their scores by number."""
    runs = job.runs()
    trainer, waiting = job.trainer(), list(reversed(numbers))
    scores: dict[int, float | None] = {}
    number_of = {run.run_id: at for at, run in enumerate(runs)}
    while waiting or trainer.members:
        while waiting and len(trainer.members) < at_once:
            trainer.admit(runs[waiting.pop()])
        for event in trainer.advance():
            if isinstance(event, Ended):
                scores[number_of[event.run_id]] = event.record["score"]
    return scores


def sweep(
    job: Job, numbers: Sequence[int], at_once: int, processes: int
) -> tuple[float, dict[int, float | None]]:
    """Seconds from nothing to the last score, and the scores."""
    began = time.perf_counter()
    if processes == 1:
        alone = apart(train, job, numbers, at_once)
        return time.perf_counter() - began, alone
    scores: dict[int, float | None] = {}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        parts = [numbers[first::processes] for first in range(processes)]
        for found in pool.map(partial(train, job, at_once=at_once), parts):
            scores |= found
    return time.perf_counter() - began, scores


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="bert-base-uncased", help="its size; a folder, or a published name"
    )
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=100, help="of each run")
    parser.add_argument(
        "--runs", type=int, default=len(RANKS) * len(ALPHAS) * SEEDS, help="the first so many"
    )
    parser.add_argument("--pack", type=int, default=32)
    parser.add_argument(
        "--processes", default="4,8", help="how many share the device, one run each at a time"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    job = Job(arguments.model, arguments.precision, arguments.steps, arguments.device)
    numbers = range(arguments.runs)
    sides = {f"packs of {arguments.pack}": (arguments.pack, 1), "one after another": (1, 1)}
    sides |= {f"{count} processes": (1, int(count)) for count in arguments.processes.split(",")}
    found = {}
    for side, how in sides.items():
        found[side] = sweep(job, numbers, *how)
        print(f"{side}: {found[side][0]:.1f} s", file=sys.stderr)
    packed, scores = next(iter(found.values()))
    rows = []
    for side, (seconds, of_side) in found.items():
        apart_by = max(abs((of_side[at] or 0.0) - (scores[at] or 0.0)) for at in numbers)
        rows.append([side, f"{seconds:.1f}", f"{seconds / packed:.2f}", f"{apart_by:.4f}"])
    print(
        f"{arguments.runs} LoRA runs over {job.model}, {job.precision}, {job.steps} steps of 16 sentences of "
        f"8 to 40 tokens, two evaluations on {EXAMPLES}; {describe_machine(['torch'])}\n"
    )
    print(table(["", "seconds", "against packs", "largest difference of a score"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
