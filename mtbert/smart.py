"""SMART's smoothness-inducing adversarial regularisation (Jiang et al. 2020, section 3.1, Algorithm 1).

R = mean over the examples of ℓ(f(x + δ), f(x)), x being the embedded tokens after dropout and ℓ
`losses.divergence`. δ starts as normal noise, a function of the run, the step and the token's place in the
run's own batch, and ascends ℓ for some steps. Every forward pass has dropout masks of its own, as in the
authors' code and in smart-pytorch, which perturb a model in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mtbert.configuration import Dropout
from mtbert.devices import put
from mtbert.draws import key64
from mtbert.dropout import token_keys
from mtbert.losses import divergence
from mtbert.pack import Pack, PackHooks, TaskOutput
from mtbert.tasks import Task
from mtbert.techniques import SMART
from mtbert.tensor_draws import normal
from mtbert.tokens import TokenBatch

Penalties = dict[tuple[int, str], Tensor]
"""What is added to the mean loss of a (member, task)."""
Outputs = dict[tuple[int, str], tuple[Task, Tensor]]
"""What the heads gave for a (member, task), [examples, outputs], with the task."""

_SPARE = 1e-6  # of smart-pytorch's, which divides by it where all entries are zero


class Smoothness:
    """The perturbations of one step of a pack, and their penalties, for the members that have SMART."""

    def __init__(
        self,
        pack: Pack,
        batch: TokenBatch,
        dropouts: Mapping[int, Dropout],
        origins: Mapping[int, tuple[int, int]],
    ) -> None:
        """
        Args:
            origins: each member's seed and step, which all that is drawn is a function of.
        """
        self._pack, self._batch, self._dropouts, self._origins = pack, batch, dropouts, origins
        found = {member: pack.admitted[member].configuration.smart for member in origins}
        self._smart = {member: smart for member, smart in found.items() if smart is not None}

    @cached_property
    def penalised(self) -> list[int]:
        """The members with a weight above zero for a task of this step."""
        spans = [span for span in self._batch.spans if span.member in self._smart]
        return sorted({span.member for span in spans if self._smart[span.member].weight_of(span.task)})

    def shifted(self, embedded: Tensor) -> Tensor:
        """What the clean branch runs on: with `perturb: both` the noise is added. [tokens, hidden]"""
        shifted = [member for member, smart in self._smart.items() if smart.perturb == "both"]
        if not shifted:
            return embedded
        return embedded + self._noise(embedded, shifted)

    def penalties(self, embedded: Tensor, clean: Sequence[TaskOutput]) -> Penalties:
        """λ·R of each member's tasks.

        Args:
            embedded: the embedded tokens, without noise. [tokens, hidden]
            clean: what the heads gave for the clean branch.
        """
        if not self.penalised:
            return {}
        known = by_member(clean)
        noise = self.perturbation(embedded.detach(), known)
        batch, rows = self._batch.select(self.penalised)
        x = embedded.index_select(0, rows) + noise.index_select(0, rows)
        found: Penalties = {}
        for (member, task), (declared, outputs) in self._outputs(x, batch, "perturbed").items():
            weight = self._smart[member].weight_of(task)
            if weight:
                found[member, task] = weight * divergence(declared, outputs, known[member, task][1]).mean()
        return found

    def perturbation(self, embedded: Tensor, clean: Outputs) -> Tensor:
        """δ of every token, after each member's ascents; zero where none is asked for. [tokens, hidden]

        Args:
            embedded: without a gradient. [tokens, hidden]
        """
        noise = self._noise(embedded, self.penalised)
        for number in range(max(self._smart[member].ascent_steps for member in self.penalised)):
            members = [member for member in self.penalised if self._smart[member].ascent_steps > number]
            batch, rows = self._batch.select(members)
            start = noise.index_select(0, rows).requires_grad_()
            x = embedded.index_select(0, rows) + start
            with ExitStack() as untrained:
                for bank in self._pack.banks:
                    untrained.enter_context(bank.stack.detached())
                outputs = self._outputs(x, batch, f"ascent {number}")
            # a sum, as smart-pytorch's: an example's own ascent does not depend on how many there are
            total = torch.stack(
                [divergence(task, of, clean[key][1].detach()).sum() for key, (task, of) in outputs.items()]
            ).sum()
            (gradient,) = torch.autograd.grad(total, start)
            moved = self._moved(start.detach(), gradient, batch)
            noise = noise.index_copy(0, rows[: batch.tokens], moved[: batch.tokens])  # spare rows repeat
        return noise

    def _noise(self, embedded: Tensor, members: Sequence[int]) -> Tensor:
        """Normal noise of each task's own spread, zero for other members. [tokens, hidden]"""
        keys = {member: key64(seed, "smart noise", step) for member, (seed, step) in self._origins.items()}
        drawn = normal(token_keys(self._batch, keys), "smart", embedded.shape[1], embedded.dtype)
        spreads = self._by_row(
            self._batch, lambda member, task: self._smart[member].noise_of(task) if member in members else 0.0
        )
        return drawn * spreads.to(embedded.dtype)

    def _outputs(self, x: Tensor, batch: TokenBatch, purpose: str) -> Outputs:
        """What the heads give for perturbed tokens, under masks drawn for this pass."""
        members = np.unique(batch.member).tolist()
        keys = {}
        for member in members:
            seed, step = self._origins[member]
            keys[member] = key64(seed, f"smart {purpose}", step)
        hooks = PackHooks(self._pack, batch, self._dropouts, keys)
        return by_member(self._pack.outputs(x, batch, hooks))

    def _moved(self, noise: Tensor, gradient: Tensor, batch: TokenBatch) -> Tensor:
        """One ascent: Algorithm 1's, its gradient over each token's largest entry, or smart-pytorch's."""

        def setting(of: Callable[[SMART], float]) -> Tensor:
            rows = self._by_row(batch, lambda member, task: of(self._smart[member]))  # noqa: ARG005
            return rows.to(noise.dtype)

        step_size = setting(lambda smart: smart.step_size)
        radius = setting(lambda smart: smart.radius)
        clips = setting(lambda smart: smart.projection == "clip") > 0
        largest = _largest(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
        step = noise + step_size * torch.where(clips, gradient / largest, gradient)
        return torch.where(clips, step.clamp(-radius, radius), radius * step / (_largest(step) + _SPARE))

    def _by_row(self, batch: TokenBatch, value: Callable[[int, str], float]) -> Tensor:
        """A value of each token's member and task. float64 [tokens, 1]"""
        spans = batch.spans
        values = [value(span.member, span.task) for span in spans]
        counts = [span.rows.stop - span.rows.start for span in spans]
        rows = np.repeat(np.array(values, dtype=np.float64), counts)
        return put(rows, batch.ids.device).unsqueeze(1)


def by_member(outputs: Sequence[TaskOutput]) -> Outputs:
    """What each head bank gave, parted by member."""
    return {
        (member, of.task.name): (of.task, of.outputs[start:stop])
        for of in outputs
        for member, start, stop in of.members
    }


def _largest(x: Tensor) -> Tensor:
    """Each row's norm ‖·‖∞. [rows, 1]"""
    return x.abs().amax(dim=-1, keepdim=True)
