"""Clipping and AdamW (Loshchilov & Hutter 2019) by owner: a member's step touches its own slots alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from mtbert.adapters.base import Bank
from mtbert.bert import Backbone
from mtbert.configuration import PARTS, Part, Training
from mtbert.devices import put
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
        step_together([(self, stage, factor, tasks)])

    def taking_part(self, stage: Training, tasks: Iterable[str]) -> list[Owned]:
        """What a step over these tasks' examples moves."""
        tasks = list(tasks)
        moving = PARTS if stage.trains is None else stage.trains
        return [leaf for leaf in self.owned if leaf.part in moving and leaf.touched(self.member, tasks)]

    def memory(self, leaf: Owned) -> Memory:
        """What AdamW remembers of a leaf; nothing before its first step."""
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
            memory = self.memory(leaf)
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


def step_together(steps: Iterable[tuple[MemberOptimizer, Training, float, Iterable[str]]]) -> None:
    """A step of each member's own, in as few operations as their learning rates allow.

    Args:
        steps: the member's optimizer, its stage, what warm-up and decay make of its learning rates now, and
            the tasks that gave it gradients.
    """
    leaves: list[Owned] = []
    clips: list[tuple[range, float]] = []
    alike: dict[tuple[float, float], list[tuple[Owned, Memory]]] = {}
    owned = []
    for optimizer, stage, factor, tasks in steps:
        owned += optimizer.owned
        own = optimizer.taking_part(stage, tasks)
        if stage.clip is not None and own:
            clips.append((range(len(leaves), len(leaves) + len(own)), stage.clip))
        leaves += own
        for leaf in own:
            rate = getattr(stage.learning_rate, leaf.part) * factor
            decay = getattr(stage.weight_decay, leaf.part) if leaf.decays else 0.0
            alike.setdefault((rate, decay), []).append((leaf, optimizer.memory(leaf)))
    for leaf in leaves:
        if leaf.gradient is not None:
            leaf.parameter.grad = leaf.gradient
    _clip(leaves, clips)
    for (rate, decay), stepped in alike.items():
        _adamw(stepped, rate, decay)
    for leaf in owned:
        leaf.parameter.grad = None


@torch.no_grad()
def _clip(leaves: Sequence[Owned], clips: Sequence[tuple[range, float]]) -> None:
    """Scale gradients down, in place, where the norm of some of them together is above a limit.

    Args:
        clips: which of the leaves belong together, and their limit.
    """
    chosen = [leaves[at] for together, _ in clips for at in together]
    gradients = [leaf.parameter.grad for leaf in chosen if leaf.parameter.grad is not None]
    if not gradients:
        return
    device = gradients[0].device
    counts = put(np.array([len(together) for together, _ in clips]), device)
    squares = torch.stack(torch._foreach_norm(gradients)).square()
    norms = torch.segment_reduce(squares, "sum", lengths=counts, unsafe=True).sqrt()
    limits = put(np.array([limit for _, limit in clips]), device).to(norms.dtype)
    factors = (limits / (norms + 1e-6)).clamp(max=1.0)
    owners = np.repeat(np.arange(len(clips)), [len(together) for together, _ in clips])
    _scale(list(zip(chosen, owners.tolist(), strict=True)), factors)


def _scale(leaves: Sequence[tuple[Owned, int]], factors: Tensor) -> None:
    """Multiply each leaf's gradient with its factor, all slots of a bank at once."""
    by_bank: dict[int, list[tuple[Owned, int]]] = {}
    for leaf, at in leaves:
        by_bank.setdefault(id(leaf.bank), []).append((leaf, at))
    none = factors.new_ones(1)
    for of_bank in by_bank.values():
        bank = of_bank[0][0].bank
        if bank is None or bank.stack.gradients is None:
            own = [leaf.parameter.grad for leaf, _ in of_bank if leaf.parameter.grad is not None]
            torch._foreach_mul_(own, factors[of_bank[0][1]])  # a backbone is trained by one member alone
            continue
        chosen = np.full(len(bank.stack.gradients), len(factors))
        for leaf, at in of_bank:
            chosen[leaf.slot] = at
        of_slots = torch.cat([factors, none])[put(chosen, factors.device)]
        bank.stack.gradients.mul_(of_slots.unsqueeze(1))


@torch.no_grad()
def _adamw(stepped: Sequence[tuple[Owned, Memory]], rate: float, decay: float) -> None:
    """One step of these leaves, in place."""
    adamw(
        [leaf.parameter for leaf, _ in stepped],
        [leaf.parameter.grad for leaf, _ in stepped if leaf.parameter.grad is not None],
        [memory.exp_avg for _, memory in stepped],
        [memory.exp_avg_sq for _, memory in stepped],
        [],
        [memory.step for _, memory in stepped],
        fused=True,
        amsgrad=False,
        beta1=_BETAS[0],
        beta2=_BETAS[1],
        lr=rate,
        weight_decay=decay,
        eps=_EPSILON,
        maximize=False,
    )


def rate_factor(stage: Training, step: int, steps: int) -> float:
    """Linear warm-up from zero, then linear decay to zero or a constant.

    Args:
        step: from 0, of the stage's `steps`.
    """
    warm = round(stage.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return 1.0 if stage.decay == "constant" else (steps - step) / max(1, steps - warm)
