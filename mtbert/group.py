"""Members that share a pack: one forward, one backward, and a step for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtbert.adapters.base import Admitted
from mtbert.adapters.low_rank import trained_backbone
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.bregman import Averages
from mtbert.configuration import PARTS, Dropout
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import generator
from mtbert.dropout import step_key
from mtbert.features import Features
from mtbert.losses import per_example
from mtbert.member import Member, penalty_of
from mtbert.optimizer import MemberOptimizer, owned_by, rate_factor
from mtbert.pack import Pack, PackHooks, TaskOutput
from mtbert.slots import State
from mtbert.smart import Penalties, Smoothness
from mtbert.surgery import Surgery
from mtbert.techniques import GradientSurgery, HuqPervin, Uncertainty
from mtbert.tokens import TokenBatch
from mtbert.weighting import Losses, loss_weights, objective


class Group:
    """Runs over one backbone in one pack; when the membership changes the pack is dissolved and rebuilt."""

    def __init__(self, backbone: Backbone, data: TokenisedData, max_length: int, device: str) -> None:
        self.backbone, self.data, self.max_length, self.device = backbone, data, max_length, device
        self.members: dict[str, Member] = {}
        self._trained: Backbone | None = None
        self._streams: dict[tuple[str, str, int], tuple[int, np.ndarray]] = {}

    def admit(
        self, member: Member, state: State, optimizer: State | None = None, average: State | None = None
    ) -> None:
        """Take a member in; the others go on as they were.

        Args:
            optimizer: what its optimizer remembers; nothing at a run's start.
            average: the moving average of the state, for a run that has one; the state itself at its start.
        """
        states = self._dissolve()
        self.members[member.run.run_id] = member
        if member.configuration.backbone == "trained":
            self._trained = self._trainable(member, state)
        states[member.run.run_id] = (state, optimizer or {}, state if average is None else average)
        self._build(states)

    def remove(self, run_id: str) -> None:
        """Let a member go; the others go on as they were."""
        states = self._dissolve()
        del self.members[run_id], states[run_id]
        self._streams = {key: value for key, value in self._streams.items() if key[0] != run_id}
        if self.members:
            self._build(states)

    def _trainable(self, member: Member, state: State) -> Backbone:
        trained = self.backbone.trainable_copy()
        names = set(trained_backbone(member.configuration, trained.config, member.tasks))
        for name, parameter in trained.named_parameters():
            parameter.requires_grad_(name in names)
            if f"backbone.{name}" in state:
                with torch.no_grad():
                    parameter.copy_(state[f"backbone.{name}"])
        return trained.pack()

    def _dissolve(self) -> dict[str, tuple[State, State, State]]:
        return {
            run_id: (self.state_of(run_id), self.optimizers[run_id].state(), self.average_of(run_id))
            for run_id in self.members
        }

    def _build(self, states: dict[str, tuple[State, State, State]]) -> None:
        self.index = {run_id: at for at, run_id in enumerate(self.members)}
        admitted = [
            Admitted(self.index[run_id], member.configuration, tuple(member.tasks), states[run_id][0])
            for run_id, member in self.members.items()
        ]
        self.pack = Pack(self._trained or self.backbone, admitted, self.data.tasks, self.device)
        averages = {self.index[run_id]: average for run_id, (_, _, average) in states.items()}
        self.averages = Averages(self.pack, averages, self._averaged(states))
        self.optimizers = {}
        for run_id in self.members:
            at = self.index[run_id]
            self.optimizers[run_id] = MemberOptimizer(at, owned_by(at, self.pack, self._trained))
            self.optimizers[run_id].load(states[run_id][1])

    def _averaged(self, states: dict[str, tuple[State, State, State]]) -> Backbone | None:
        """The average of a trained backbone, where the run that trains it has one."""
        for run_id, member in self.members.items():
            smart = member.configuration.smart
            if self._trained is not None and smart is not None and smart.bregman is not None:
                return self._trainable(member, states[run_id][2]).requires_grad_(False)
        return None

    def average_of(self, run_id: str) -> State:
        """The moving average of all that `state_of` gives; empty for a run that has none."""
        return self.averages.state_of(self.index[run_id])

    def state_of(self, run_id: str) -> State:
        """All that a member trains, or added untrained, by name."""
        state = self.pack.state_of(self.index[run_id])
        if self._trained is not None:
            state |= {
                f"backbone.{name}": parameter.detach().clone()
                for name, parameter in self._trained.named_parameters()
                if parameter.requires_grad
            }
        return state

    def step(self) -> None:
        """Advance every member by one step of its own."""
        began = time.perf_counter()
        members = list(self.members.items())
        requests, labels = self._requests()
        batch = assemble(requests, self.data.special, self.max_length, self.device)
        for _, member in members:
            if member.seconds_startup is None:
                member.seconds_startup = time.perf_counter() - member.admitted_at
        dropouts = {self.index[run_id]: member.stage.dropout for run_id, member in members}
        origins = {self.index[run_id]: (member.run.seed, member.step) for run_id, member in members}
        outputs, penalties = self._forward(requests, batch, dropouts, origins)
        losses = _mean_losses(outputs, labels)
        for at, (_, member) in enumerate(members):
            for task, loss in losses[at].items():
                member.add_loss(task, loss.detach())
            losses[at] = penalised(member, at, losses[at], penalties)
        self._backward(losses)
        for run_id, member in members:
            tasks = [task for task, _ in member.plan.at(member.position)]
            factor = rate_factor(member.stage, member.position, member.plan.steps)
            self.optimizers[run_id].step(member.stage, factor, tasks)
            member.tokens += int(batch.lengths[batch.member == self.index[run_id]].sum())
        self.averages.update()
        seconds = (time.perf_counter() - began) / len(members)
        for run_id, member in members:
            member.seconds["training"] += seconds
            if member.took_step() and member.stage.optimizer == "fresh":
                at = self.index[run_id]
                self.optimizers[run_id] = MemberOptimizer(at, owned_by(at, self.pack, self._trained))

    def _forward(
        self,
        requests: Sequence[Request],
        batch: TokenBatch,
        dropouts: Mapping[int, Dropout],
        origins: Mapping[int, tuple[int, int]],
    ) -> tuple[list[TaskOutput], Sequence[Penalties]]:
        """What the heads give in training, and what SMART and its averages add to the losses.

        Args:
            origins: each member's seed and step.
        """
        hooks = PackHooks(self.pack, batch, dropouts, {at: step_key(*of) for at, of in origins.items()})
        stored = self.features(requests)
        if stored is not None:
            return self.pack.heads_over(stored, batch, hooks), ()
        smoothness = Smoothness(self.pack, batch, dropouts, origins)
        embedded = self.pack.backbone.embed(batch, hooks)
        outputs = self.pack.outputs(smoothness.shifted(embedded), batch, hooks)
        return outputs, (smoothness.penalties(embedded, outputs), self.averages.penalties(batch, outputs))

    def _backward(self, losses: Mapping[int, Losses]) -> None:
        """Give every member the gradient of what its weighting makes of its tasks' losses.

        One pass serves all, but for gradient surgery, which has one for each task. A member's tasks are
        taken in its own order: that of the outputs depends on who else is in the pack.
        """
        together = torch.zeros((), device=self.device)
        apart: dict[int, Surgery] = {}
        for run_id, member in self.members.items():
            at = self.index[run_id]
            own = {task: losses[at][task] for task in member.tasks if task in losses[at]}
            if isinstance(member.configuration.weighting, GradientSurgery):
                moving = PARTS if member.stage.trains is None else member.stage.trains
                draw = generator(member.run.seed, "surgery", member.step)
                apart[at] = Surgery(own, self.optimizers[run_id].owned, moving, draw)
            else:
                together = together + self._objective(run_id, own)
        passes = max([1, *(len(surgery.losses) for surgery in apart.values())])
        for number in range(passes):
            self.pack.zero_gradients()
            now = {at: surgery for at, surgery in apart.items() if number < len(surgery.losses)}
            total = sum(
                (surgery.losses[number] for surgery in now.values()), start=torch.zeros_like(together)
            )
            last = number + 1 == passes  # nothing is zeroed after it: the others' gradients stay
            total = total + together if last else total
            if total.requires_grad:  # a head without parameters over a backbone that nothing alters has none
                total.backward(retain_graph=not last)  # type: ignore[no-untyped-call]
            for at, surgery in now.items():
                surgery.take(at)
        for surgery in apart.values():
            surgery.put_together()

    def _objective(self, run_id: str, losses: Losses) -> Tensor:
        """What a member's step descends on."""
        member = self.members[run_id]
        if isinstance(member.configuration.weighting, HuqPervin):
            # copies: a checkpoint refuses tensors that share memory with the losses to be told
            member.latest_losses |= {task: loss.detach().clone() for task, loss in losses.items()}
        log_variances = self.pack.log_variances(self.index[run_id])
        return objective(losses, self._loss_weights(run_id), log_variances)

    def _loss_weights(self, run_id: str) -> Mapping[str, Tensor | float]:
        member = self.members[run_id]
        latest = {
            task: member.latest_losses[task].to(self.device)
            for task in member.plan.tasks  # what an earlier stage saw last has no part in this one's sum
            if task in member.latest_losses
        }
        log_variances = self.pack.log_variances(self.index[run_id])
        return loss_weights(member.configuration.weighting, member.tasks, log_variances, latest)

    def changing_weights(self, run_id: str) -> dict[str, float]:
        """The weights of a run's losses as they are now, where they change as it goes."""
        member = self.members[run_id]
        if not isinstance(member.configuration.weighting, Uncertainty | HuqPervin):
            return {}
        with torch.no_grad():
            weights = self._loss_weights(run_id)
        return {task: float(weights[task]) for task in member.reached_tasks if task in weights}

    def features(self, requests: Sequence[Request]) -> Features | None:  # noqa: ARG002
        """What reaches the heads, where it is known without the backbone: not here."""
        return None

    def _requests(self) -> tuple[list[Request], dict[tuple[int, str], Tensor]]:
        """Every member's examples of its next step, and their labels by (member, task)."""
        requests: list[Request] = []
        labels = {}
        for run_id, member in self.members.items():
            at = self.index[run_id]
            for task, number in member.plan.at(member.position):
                split = self.data.splits[task, "train"]
                indices = self.examples(member, task, number)
                requests.append(Request(at, task, split, indices, member.configuration.pairs))
                labels[at, task] = torch.from_numpy(split.labels[indices]).to(self.device)
        return requests, labels

    def examples(self, member: Member, task: str, number: int) -> np.ndarray:
        """The examples of a task's batch: consecutive ones of a stream of shuffled passes. int64 [batch]"""
        size = len(self.data.splits[task, "train"].ids)
        wanted = np.arange(number * member.stage.batch_size, (number + 1) * member.stage.batch_size)
        passes = [self._pass(member, task, int(at), size) for at in np.unique(wanted // size)]
        offset = wanted[0] // size * size
        chosen: np.ndarray = np.concatenate(passes)[wanted - offset]
        return chosen

    def _pass(self, member: Member, task: str, number: int, size: int) -> np.ndarray:
        """The order of a task's pass, a function of the run's seed, the stage and the pass."""
        key = (member.run.run_id, task, number % 2)
        stamp = member.stage_index * 1_000_000 + number
        known = self._streams.get(key)
        if known is None or known[0] != stamp:
            draw = generator(member.run.seed, "order", member.stage_index, task, number)
            known = (stamp, draw.permutation(size))
            self._streams[key] = known
        return known[1]


def penalised(
    member: Member, at: int, losses: Mapping[str, Tensor], penalties: Sequence[Penalties]
) -> dict[str, Tensor]:
    """A member's losses by task, each with what is added to it; the member remembers what that is."""
    found = dict(losses)
    for task in losses:
        added = [of[at, task] for of in penalties if (at, task) in of]
        if added:
            penalty = torch.stack(added).sum()
            member.add_loss(penalty_of(task), penalty.detach())
            found[task] = losses[task] + penalty
    return found


def _mean_losses(
    outputs: Sequence[TaskOutput], labels: Mapping[tuple[int, str], Tensor]
) -> dict[int, dict[str, Tensor]]:
    """Each member's mean loss by task, from what the heads gave and the labels by (member, task)."""
    found: dict[int, dict[str, Tensor]] = {}
    for output in outputs:
        name = output.task.name
        known = torch.cat([labels[at, name] for at, _, _ in output.members])
        losses = per_example(output.task, output.outputs, known)
        for at, start, stop in output.members:
            found.setdefault(at, {})[name] = losses[start:stop].mean()
    return found
