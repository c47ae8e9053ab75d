"""Clipping and AdamW (Loshchilov & Hutter 2019) by owner: a member's step touches its own slots alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.adamw import adamw

from mtbert.adapters.base import Bank
from mtbert.bert import Backbone
from mtbert.configuration import PARTS, Part, Training
from mtbert.pack import Pack
from mtbert.slots import State
from mtbert.weighting import LogVarianceBank

_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, eq=False)
class Owned:
    """A leaf of one member: a slot of a bank, flat, or a tensor of the backbone's.

    Attributes:
        parameter: what AdamW steps; its gradient is set before each step.
        gradient: where the slot's gradient lies; None for a backbone's tensor, whose own `.grad` serves.
    """

    part: Part
    parameter: Tensor
    gradient: Tensor | None
    bank: Bank | None
    slot: int
    name: str

    def touched(self, member: int, tasks: Iterable[str]) -> bool:
        """Whether a step over these tasks' examples gave it a gradient."""
        if self.bank is None:
            return self.parameter.grad is not None
        return any(self.bank.slot_of(member, task) == self.slot for task in tasks)

    @property
    def decays(self) -> bool:
        """Whether weight decay applies: to a log-variance it would be a pull towards σ = 1."""
        return not isinstance(self.bank, LogVarianceBank)

    def take_gradient(self) -> Tensor:
        """What the last backward pass gave it, to be kept: a copy, or the backbone's own, now without."""
        if self.gradient is not None:
            return self.gradient.clone()
        gradient = self.parameter.grad
        assert gradient is not None
        self.parameter.grad = None
        return gradient

    def put_gradient(self, gradient: Tensor) -> None:
        """Have it stepped by this."""
        if self.gradient is not None:
            self.gradient.copy_(gradient)
        else:
            self.parameter.grad = gradient

    def read(self, flat: Tensor) -> State:
        """The named tensors in something of the parameter's shape."""
        if self.bank is None:
            return {self.name: flat.detach().clone()}
        return self.bank.stack.read(flat, self.slot)

    def write(self, flat: Tensor, state: State) -> None:
        if self.bank is None:
            flat.copy_(state[self.name])
        else:
            self.bank.stack.write(flat, self.slot, state)


def owned_by(member: int, pack: Pack, trained: Backbone | None) -> Iterator[Owned]:
    """All that a member trains, in a fixed order."""
    for bank in pack.banks:
        gradients = bank.stack.gradients
        for slot, owner in enumerate(bank.members):
            own = bank.stack.extents[slot]
            if owner == member and gradients is not None and own:
                name = next(iter(own.values())).key
                yield Owned(bank.part, bank.stack.values[slot], gradients[slot], bank, slot, name)
    if trained is not None:
        for name, parameter in trained.named_parameters():
            if parameter.requires_grad:
                yield Owned("backbone", parameter, None, None, 0, f"backbone.{name}")


@dataclass(frozen=True, eq=False)
class Memory:
    """What AdamW remembers of a leaf: both moments, shaped as it is, and the number of its steps."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: Tensor

    @staticmethod
    def blank(parameter: Tensor) -> Memory:
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return Memory(torch.zeros_like(parameter), torch.zeros_like(parameter), step)


class MemberOptimizer:
    """AdamW over what one member owns, with a learning rate and a weight decay for each part.

    By torch's function, not its class: the class imports the compiler, a second of every worker's start.
    """

    def __init__(self, member: int, owned: Iterable[Owned]) -> None:
        self.member = member
        self.owned = list(owned)
        self._memories: dict[str, Memory] = {}

    def step(self, stage: Training, factor: float, tasks: Iterable[str]) -> None:
        """Clip what the step's tasks gave, and step it; what got no tokens stays.

        Args:
            factor: what warm-up and decay make of the learning rates now.
        """
        tasks = list(tasks)
        moving = PARTS if stage.trains is None else stage.trains
        leaves = [leaf for leaf in self.owned if leaf.part in moving and leaf.touched(self.member, tasks)]
        for leaf in leaves:
            if leaf.gradient is not None:
                leaf.parameter.grad = leaf.gradient
        if stage.clip is not None and leaves:
            clip_grad_norm_([leaf.parameter for leaf in leaves], stage.clip)
        for part in PARTS:
            decay = getattr(stage.weight_decay, part)
            rate = getattr(stage.learning_rate, part) * factor
            self._adamw([leaf for leaf in leaves if leaf.part == part and leaf.decays], rate, decay)
            self._adamw([leaf for leaf in leaves if leaf.part == part and not leaf.decays], rate, 0.0)
        for leaf in self.owned:
            leaf.parameter.grad = None

    @torch.no_grad()
    def _adamw(self, leaves: Sequence[Owned], rate: float, decay: float) -> None:
        """One step of these leaves, in place."""
        if not leaves:
            return
        memories = [self._memory(leaf) for leaf in leaves]
        adamw(
            [leaf.parameter for leaf in leaves],
            [leaf.parameter.grad for leaf in leaves if leaf.parameter.grad is not None],
            [memory.exp_avg for memory in memories],
            [memory.exp_avg_sq for memory in memories],
            [],
            [memory.step for memory in memories],
            fused=True,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=rate,
            weight_decay=decay,
            eps=_EPSILON,
            maximize=False,
        )

    def _memory(self, leaf: Owned) -> Memory:
        if leaf.name not in self._memories:
            self._memories[leaf.name] = Memory.blank(leaf.parameter)
        return self._memories[leaf.name]

    def state(self) -> State:
        """What AdamW remembers, by the names of what it is about."""
        found: State = {}
        for leaf in self.owned:
            memory = self._memories.get(leaf.name)
            if memory is not None:
                for moment in _MOMENTS:
                    values = leaf.read(getattr(memory, moment))
                    found |= {f"{moment}.{name}": value for name, value in values.items()}
                found[f"step.{leaf.name}"] = memory.step.clone().cpu()
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""
        for leaf in self.owned:
            if f"step.{leaf.name}" not in state:
                continue
            memory = self._memory(leaf)
            memory.step.copy_(state[f"step.{leaf.name}"])
            for moment in _MOMENTS:
                prefix = f"{moment}."
                moments = {
                    name.removeprefix(prefix): value
                    for name, value in state.items()
                    if name.startswith(prefix)
                }
                with torch.no_grad():
                    leaf.write(getattr(memory, moment), moments)


def rate_factor(stage: Training, step: int, steps: int) -> float:
    """Linear warm-up from zero, then linear decay to zero or a constant.

    Args:
        step: from 0, of the stage's `steps`.
    """
    warm = round(stage.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 1.0 if stage.decay == "constant" else (steps - step) / max(1, steps - warm)
