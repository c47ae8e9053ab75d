"""A plain training loop for one run: each task's gradients by name, one AdamW over named tensors.

It has neither slots nor members. How the tasks' gradients become one is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.data.tokenise import TokenisedData
from mtbert.group import Group
from mtbert.losses import per_example
from mtbert.member import Member, initial_state
from mtbert.optimizer import owned_by
from mtbert.run import Run
from mtbert.slots import State
from tests.mtbert import toys
from tests.mtbert.adapters.contract import packed

Gradients = dict[str, Tensor]


@dataclass
class Step:
    """What a step starts from.

    Attributes:
        losses: of the step's tasks; `gradients` theirs, by name, where a task's examples reach.
        state: everything that is trained.
    """

    number: int
    losses: dict[str, float]
    gradients: dict[str, Gradients]
    state: State


Combine = Callable[[Step], Gradients]


def task_gradients(
    run: Run, state: State, task: str, indices: np.ndarray, data: TokenisedData, backbone: Backbone
) -> tuple[float, Gradients]:
    """The loss of one task's examples, without dropout, and its gradients where they reach."""
    pack = packed([run], [state], backbone)
    split = data.splits[task, "train"]
    batch = assemble([Request(0, task, split, indices, run.configuration.pairs)], data.special, 64)
    (output,) = pack.forward(batch, None, {})
    loss = per_example(output.task, output.outputs, torch.from_numpy(split.labels[indices])).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    found: Gradients = {}
    for leaf in owned_by(0, pack, None):
        if leaf.gradient is not None and leaf.touched(0, [task]):
            found |= leaf.read(leaf.gradient)
    return loss.item(), {name: value for name, value in found.items() if not name.startswith("weighting.")}


def train(run: Run, data: TokenisedData, backbone: Backbone, combine: Combine) -> list[State]:
    """The run's tensors at first and after every step, at constant rates and without dropout."""
    (stage,) = run.configuration.stage_list()
    assert (stage.warmup, stage.decay, stage.dropout.backbone, stage.dropout.heads) == (0, "constant", 0, 0)
    sizes = {task: len(data.splits[task, "train"].ids) for task in data.tasks}
    member, examples = Member(run, toys.TASKS, sizes), Group(backbone, data, 64, "cpu").examples
    parameters = {
        name: torch.nn.Parameter(value.double())
        for name, value in initial_state(run, toys.SMALL, toys.TASKS).items()
    }
    optimizer = adamw(run, parameters)
    states = [copied(parameters)]
    for number in range(member.total_steps):
        found = {
            task: task_gradients(run, copied(parameters), task, examples(member, task, at), data, backbone)
            for task, at in member.plan.at(number)
        }
        losses = {task: loss for task, (loss, _) in found.items()}
        gradients = {task: own for task, (_, own) in found.items()}
        chosen = combine(Step(number, losses, gradients, copied(parameters)))
        for name, parameter in parameters.items():
            parameter.grad = chosen.get(name)
        if stage.clip is not None:
            clip_grad_norm_(parameters.values(), stage.clip)
        optimizer.step()
        states.append(copied(parameters))
    return states


def adamw(run: Run, parameters: Mapping[str, Tensor]) -> torch.optim.AdamW:
    """Heads and adapters at their rates with their decay; log-variances at the heads' rate without any."""
    stage = run.configuration.training
    rates, decay = stage.learning_rate, stage.weight_decay
    kinds = {
        "heads.": (rates.heads, decay.heads),
        "low_rank.": (rates.adapters, decay.adapters),
        "weighting.": (rates.heads, 0.0),
    }
    return torch.optim.AdamW(
        {"params": [value], "lr": kinds[kind][0], "weight_decay": kinds[kind][1]}
        for name, value in parameters.items()
        for kind in kinds
        if name.startswith(kind)
    )


def copied(parameters: Mapping[str, Tensor]) -> State:
    return {name: value.detach().clone() for name, value in parameters.items()}


def weighted(gradients: Mapping[str, Gradients], weights: Mapping[str, float]) -> Gradients:
    """The sum of the tasks' gradients, each times its task's weight."""
    total: Gradients = {}
    for task, own in gradients.items():
        for name, gradient in own.items():
            total[name] = total.get(name, torch.zeros_like(gradient)) + weights[task] * gradient
    return total
