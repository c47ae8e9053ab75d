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
from mtbert.data.tokenise import TokenisedData
from mtbert.draws import generator
from mtbert.dropout import step_key
from mtbert.features import Features, FeatureStore, depends_on_example_alone
from mtbert.losses import per_example
from mtbert.member import Member
from mtbert.optimizer import MemberOptimizer, owned_by, rate_factor
from mtbert.pack import Pack, TaskOutput
from mtbert.slots import State
from mtbert.weighting import objective


class Group:
    """Runs over one backbone in one pack; when the membership changes the pack is dissolved and rebuilt."""

    def __init__(self, backbone: Backbone, data: TokenisedData, max_length: int, device: str) -> None:
        self.backbone, self.data, self.max_length, self.device = backbone, data, max_length, device
        self.members: dict[str, Member] = {}
        self._trained: Backbone | None = None
        self._streams: dict[tuple[str, str, int], tuple[int, np.ndarray]] = {}

    def admit(self, member: Member, state: State, optimizer: State) -> None:
        """Take a member in; the others go on as they were."""
        states = self._dissolve()
        self.members[member.run.run_id] = member
        if member.configuration.backbone == "trained":
            self._trained = self._trainable(member, state)
        states[member.run.run_id] = (state, optimizer)
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

    def _dissolve(self) -> dict[str, tuple[State, State]]:
        return {run_id: (self.state_of(run_id), self.optimizers[run_id].state()) for run_id in self.members}

    def _build(self, states: dict[str, tuple[State, State]]) -> None:
        self.index = {run_id: at for at, run_id in enumerate(self.members)}
        admitted = [
            Admitted(self.index[run_id], member.configuration, tuple(member.tasks), states[run_id][0])
            for run_id, member in self.members.items()
        ]
        self.pack = Pack(self._trained or self.backbone, admitted, self.data.tasks, self.device)
        self.optimizers = {}
        for run_id in self.members:
            at = self.index[run_id]
            self.optimizers[run_id] = MemberOptimizer(at, owned_by(at, self.pack, self._trained))
            self.optimizers[run_id].load(states[run_id][1])

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
        keys = {self.index[run_id]: step_key(member.run.seed, member.step) for run_id, member in members}
        outputs = self.pack.forward(batch, dropouts, keys, self.features(requests))
        self.pack.zero_gradients()
        losses = _mean_losses(outputs, labels)
        total = torch.zeros((), device=self.device)
        for at, (_, member) in enumerate(members):
            for task, loss in losses[at].items():
                member.add_loss(task, loss.detach())
            total = total + objective(member.configuration, losses[at])
        if total.requires_grad:  # a head without parameters over a backbone that nothing alters has none
            total.backward()  # type: ignore[no-untyped-call]
        for run_id, member in members:
            tasks = [task for task, _ in member.plan.at(member.position)]
            factor = rate_factor(member.stage, member.position, member.plan.steps)
            self.optimizers[run_id].step(member.stage, factor, tasks)
            member.tokens += int(batch.lengths[batch.member == self.index[run_id]].sum())
        seconds = (time.perf_counter() - began) / len(members)
        for run_id, member in members:
            member.seconds["training"] += seconds
            if member.took_step() and member.stage.optimizer == "fresh":
                at = self.index[run_id]
                self.optimizers[run_id] = MemberOptimizer(at, owned_by(at, self.pack, self._trained))

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


class ProbeGroup(Group):
    """Members whose heads read what depends on the example alone: it is computed once, and then stored."""

    def __init__(
        self,
        backbone: Backbone,
        data: TokenisedData,
        max_length: int,
        device: str,
        store: FeatureStore,
    ) -> None:
        super().__init__(backbone, data, max_length, device)
        self._store = store

    def features(self, requests: Sequence[Request]) -> Features:
        read = {at: member.configuration.features for at, member in self.pack.admitted.items()}
        return self._store.read(self.backbone, self.max_length, requests, read)


def max_length_of(member: Member, longest: int) -> int:
    """A run's maximum length, at most the model's own."""
    wanted = member.configuration.max_length
    return longest if wanted is None else min(wanted, longest)


def group_key(member: Member, longest: int) -> tuple[str | int, ...]:
    """Runs with equal keys may share a pack; one that trains the backbone has a key of its own."""
    configuration = member.configuration
    apart: Sequence[str] = (member.run.run_id,) if configuration.backbone == "trained" else ()
    if depends_on_example_alone(configuration):
        apart = ("stored features",)
    return (configuration.precision, max_length_of(member, longest), *apart)


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
