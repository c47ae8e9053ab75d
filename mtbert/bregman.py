"""Bregman proximal point optimisation with momentum (Jiang et al. 2020, section 3.2).

To a task's loss comes μ times the mean over the examples of ℓ(f(x; θ), f(x; θ̃)), ℓ being
`losses.divergence` and θ̃ ← (1 − β)·θ + β·θ̃ a moving average of all that a member trains, from its start
on. θ̃ has no gradient. The averaged model drops nothing, and its input is not perturbed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import copy

import torch
from torch import Tensor

from mtbert.bert import Backbone
from mtbert.configuration import Configuration
from mtbert.losses import divergence
from mtbert.pack import Pack, TaskOutput
from mtbert.slots import State
from mtbert.smart import Penalties, by_member
from mtbert.tokens import TokenBatch


def has_average(configuration: Configuration) -> bool:
    """Whether a run follows a moving average of itself."""
    return configuration.smart is not None and configuration.smart.bregman is not None


class Averages:
    """The moving averages of those members of a pack that have a proximal term."""

    def __init__(self, pack: Pack, states: Mapping[int, State], backbone: Backbone | None) -> None:
        """
        Args:
            states: the average of every member as it stands, by name; not read for those without the term.
            backbone: the average of a trained backbone, which this one owns; None where it is frozen.
        """
        self._terms = {
            index: member.configuration.smart.bregman
            for index, member in pack.admitted.items()
            if member.configuration.smart is not None and member.configuration.smart.bregman is not None
        }
        self._trained = pack.backbone
        self._backbone = backbone
        self._pack = copy(pack)  # the same banks, over an average of the backbone's own
        self._pack.backbone = backbone or pack.backbone
        self._banks = [bank for bank in pack.banks if set(bank.members) & set(self._terms)]
        self._values = [torch.zeros_like(bank.stack.values) for bank in self._banks]
        self._rates = [
            torch.tensor([self._rate(owner) for owner in bank.members], dtype=torch.float64).to(values)[
                :, None
            ]
            for bank, values in zip(self._banks, self._values, strict=True)
        ]
        for bank, values in zip(self._banks, self._values, strict=True):
            for slot, owner in enumerate(bank.members):
                if owner in self._terms:
                    bank.stack.write(values[slot], slot, states[owner])

    def _rate(self, member: int) -> float:
        """1 − β; zero without a term: what is not asked for stays zero."""
        term = self._terms.get(member)
        return 0.0 if term is None else 1 - term.momentum

    def state_of(self, member: int) -> State:
        """A member's averages by name; none where it has no term."""
        if member not in self._terms:
            return {}
        state: State = {}
        for bank, values in zip(self._banks, self._values, strict=True):
            for slot, owner in enumerate(bank.members):
                if owner == member:
                    state |= bank.stack.read(values[slot], slot)
        return state | {f"backbone.{name}": average.clone() for name, average, _ in self._backbones()}

    @torch.no_grad()
    def update(self) -> None:
        """Follow the members' last step."""
        for bank, values, rates in zip(self._banks, self._values, self._rates, strict=True):
            values.lerp_(bank.stack.values, rates)
        for _, average, parameter in self._backbones():
            average.lerp_(parameter, self._rate(next(iter(self._terms))))  # who trains it is alone

    def penalties(self, batch: TokenBatch, outputs: Sequence[TaskOutput]) -> Penalties:
        """μ times the divergence from the averaged model's outputs, of each member's tasks."""
        if not self._terms:
            return {}
        known = by_member(outputs)
        own, _ = batch.select(list(self._terms))
        with torch.no_grad(), ExitStack() as averaged:
            for bank, values in zip(self._banks, self._values, strict=True):
                averaged.enter_context(bank.stack.replaced(values))
            reference = by_member(self._pack.forward(own, None, {}))
        return {
            (member, name): self._terms[member].weight * divergence(task, known[member, name][1], of).mean()
            for (member, name), (task, of) in reference.items()
        }

    def _backbones(self) -> list[tuple[str, Tensor, Tensor]]:
        """Name, average and current value of what is trained of the backbone."""
        if self._backbone is None or not self._terms:
            return []
        averages = dict(self._backbone.named_parameters())
        return [
            (name, averages[name], parameter)
            for name, parameter in self._trained.named_parameters()
            if parameter.requires_grad
        ]
