"""Tokens per second of this trainer against transformers + PEFT, in turns in one process, on real batches.

    python benchmarks/training_throughput.py --model FOLDER --data FOLDER

Both sides train the same LoRA from the same initial values over the same batches in the same order with
the same dropout rates; batches are drawn as in training and never repeated. Tokens are real ones: padding
counts for nobody. One thread, as a run of a sweep has.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.common import Peer, describe_machine, table
from mtbert.batches import sequence_lengths
from mtbert.bert import Backbone
from mtbert.configuration import Configuration, parse
from mtbert.data.tokenise import TokenisedData, tokenise
from mtbert.group import Group
from mtbert.inputs import Inputs
from mtbert.member import Member, initial_state
from mtbert.run import Run
from mtbert.weights import BaseModel, load_base


@dataclass
class Side:
    """One way to train: takes a step on a given batch and says its loss."""

    name: str
    step: Callable[[], float]
    seconds: float = 0.0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)

    def turn(self, batches: Sequence[int]) -> None:
        began = time.perf_counter()
        for tokens in batches:
            self.losses.append(self.step())
            self.tokens += tokens
        self.seconds += time.perf_counter() - began

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


def ours(base: BaseModel, data: TokenisedData, configuration: Configuration) -> tuple[Side, Group]:
    """This trainer with one run."""
    backbone = Backbone.from_arrays(base.config, base.arrays, configuration.precision)
    group = Group(backbone, data, base.config.max_position_embeddings, "cpu")
    run = Run(configuration, 0, data.fingerprint, base.fingerprint)
    sizes = {task: len(data.splits[task, "train"].ids) for task in data.tasks}
    member = Member(run, data.tasks, sizes)
    group.admit(member, initial_state(run, base.config, member.tasks))

    def step() -> float:
        group.step()
        (loss,) = member.mean_losses().values()
        return loss

    return Side(f"this trainer, {configuration.precision}", step), group


def theirs(base: BaseModel, data: TokenisedData, configuration: Configuration, autocast: bool) -> Side:
    """The documented loop: padded batches, AdamW over what requires gradients, clipping, a scheduler."""
    run = Run(configuration, 0, data.fingerprint, base.fingerprint)
    sizes = {task: len(data.splits[task, "train"].ids) for task in data.tasks}
    member = Member(run, data.tasks, sizes)
    order = Group(Backbone.from_arrays(base.config, base.arrays), data, 512, "cpu")
    peer = Peer(base.folder, configuration, data)
    peer.start_from(initial_state(run, base.config, member.tasks))
    peer.train()
    stage = configuration.training
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [p for p in peer.bert.parameters() if p.requires_grad],
                "lr": stage.learning_rate.adapters,
            },
            {"params": list(peer.heads.parameters()), "lr": stage.learning_rate.heads},
        ],
        weight_decay=0.0,
    )
    trained = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> float:
        ((task, number),) = member.plan.at(member.position)
        indices = order.examples(member, task, number)
        context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
        with context:
            loss = peer.loss(data, task, indices, configuration.pairs, base.config.max_position_embeddings)
        loss.backward()
        if stage.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, stage.clip)
        optimizer.step()
        optimizer.zero_grad()
        member.took_step()
        return loss.item()

    return Side(f"transformers + peft, {'bfloat16 autocast' if autocast else 'float32'}", step)


def batch_tokens(data: TokenisedData, group: Group, steps: int) -> list[int]:
    """The real tokens of each step's batch."""
    (member,) = group.members.values()
    found = []
    for step in range(steps):
        ((task, number),) = member.plan.at(step)
        lengths = sequence_lengths(data.splits[task, "train"], member.configuration.pairs, group.max_length)
        found.append(int(lengths[group.examples(member, task, number)].sum()))
    return found


def configuration_of(precision: str, dropout: float, steps: int) -> Configuration:
    """The run that both sides train."""
    return parse(
        {
            "precision": precision,
            "low_rank": {"rank": 8, "alpha": 8, "dropout": dropout},
            "training": {
                "steps": steps,
                "warmup": 0.0,
                "decay": "constant",
                "dropout": {"backbone": dropout, "heads": dropout},
            },
        }
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--turns", type=int, default=12, help="how often each side has its turn")
    parser.add_argument("--steps", type=int, default=10, help="steps a turn")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = load_base(arguments.model)
    data = tokenise(Inputs(data=arguments.data).dataset(), base.tokenizer())
    steps = arguments.turns * arguments.steps
    make = lambda precision: configuration_of(precision, arguments.dropout, steps)  # noqa: E731
    float32, group = ours(base, data, make("float32"))
    bfloat16, _ = ours(base, data, make("bfloat16"))
    peers = [theirs(base, data, make("float32"), autocast) for autocast in (False, True)]
    sides = [float32, bfloat16, *peers]
    tokens = batch_tokens(data, group, steps)
    for turn in range(arguments.turns):
        for side in sides:
            side.turn(tokens[turn * arguments.steps : (turn + 1) * arguments.steps])
        if turn == 0:  # the first turn warms up
            for side in sides:
                side.seconds, side.tokens = 0.0, 0
    rows = [
        [
            side.name,
            f"{side.speed:,.0f}",
            f"{side.speed / peers[0].speed:.2f}",
            f"{side.speed / peers[1].speed:.2f}",
            f"{np.mean(side.losses[: steps // 4]):.3f}",
            f"{np.mean(side.losses[-steps // 4 :]):.3f}",
        ]
        for side in sides
    ]
    caption = (
        f"LoRA r8 on query and value of {arguments.model}, dropout {arguments.dropout}, {steps} steps of 16"
    )
    machine = describe_machine(["torch", "transformers", "peft"])
    print(f"{caption}, {np.mean(tokens):.0f} tokens a step; {machine}\n")
    header = [
        "",
        "real tokens/s",
        "against float32 peer",
        "against bfloat16 peer",
        "loss, first quarter",
        "last",
    ]
    print(table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
