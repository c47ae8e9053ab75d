"""Members that share a pack: one forward, one backward, and a step for each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, master_type
from mtbert.adapters.low_rank import trained_backbone
from mtbert.batches import Request, assemble
from mtbert.bert import Backbone
from mtbert.bregman import Averages, has_average
from mtbert.configuration import PARTS, Dropout, Training
from mtbert.data.tokenise import TokenisedData
from mtbert.devices import put
from mtbert.draws import generator
from mtbert.dropout import step_key
from mtbert.features import Features
from mtbert.losses import per_example
from mtbert.member import Member, add_losses, penalty_of
from mtbert.optimizer import MemberOptimizer, owned_by, rate_factor, step_together
from mtbert.pack import Pack, PackHooks, TaskOutput
from mtbert.slots import State, segment_means
from mtbert.smart import Penalties, Smoothness
from mtbert.surgery import Surgery
from mtbert.techniques import GradientSurgery, HuqPervin, StaticWeights, Uncertainty
from mtbert.tokens import TokenBatch
from mtbert.weighting import Losses, loss_weights, objective


@dataclass(frozen=True, eq=False)
class Stand:
    """What a member is made of: its tensors, what its optimizer remembers, and its moving average."""

    state: State
    optimizer: State
    average: State


@dataclass(frozen=True, eq=False)
class Built:
    """The members side by side; `index` is each one's place in the pack."""

    index: Mapping[str, int]
    pack: Pack
    averages: Averages
    optimizers: dict[str, MemberOptimizer]


class Group:
    """Runs over one backbone in one pack.

    When the membership changes the pack is dissolved into what each member is made of, and built again when
    it is needed next: any number of members come and go for the price of one.
    """

    def __init__(self, backbone: Backbone, data: TokenisedData, max_length: int, device: str) -> None:
        self.backbone, self.data, self.max_length, self.device = backbone, data, max_length, device
        self.members: dict[str, Member] = {}
        self._stands: dict[str, Stand] = {}
        self._built: Built | None = None
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
        self._dissolve()
        self.members[member.run.run_id] = member
        kept_in = master_type(member.configuration.precision)
        state = {name: value.to(kept_in) for name, value in state.items()}
        if member.configuration.backbone == "trained":
            self._trained = self._trainable(member, state)
            state |= self._state_of_backbone()
        if average is None:
            average = (
                {name: value.clone() for name, value in state.items()}
                if has_average(member.configuration)
                else {}
            )
        self._stands[member.run.run_id] = Stand(state, optimizer or {}, average)

    def remove(self, run_id: str) -> None:
        """Let a member go; the others go on as they were."""
        self._dissolve()
        del self.members[run_id], self._stands[run_id]
        self._streams = {key: value for key, value in self._streams.items() if key[0] != run_id}

    def _trainable(self, member: Member, state: State) -> Backbone:
        trained = self.backbone.trainable_copy()
        names = set(trained_backbone(member.configuration, trained.config, member.tasks))
        for name, parameter in trained.named_parameters():
            parameter.requires_grad_(name in names)
            if f"backbone.{name}" in state:
                with torch.no_grad():
                    parameter.copy_(state[f"backbone.{name}"])
        return trained.pack()

    def stand_of(self, run_id: str) -> Stand:
        """What a member is made of now."""
        built = self._built
        if built is None:
            return self._stands[run_id]
        return Stand(
            self.state_of(run_id),
            built.optimizers[run_id].state(),
            built.averages.state_of(built.index[run_id]),
        )

    def state_of(self, run_id: str) -> State:
        """All that a member trains, or added untrained, by name."""
        if self._built is None:
            return self._stands[run_id].state
        return self._built.pack.state_of(self._built.index[run_id]) | self._state_of_backbone()

    def _state_of_backbone(self) -> State:
        """What is trained of the backbone, by the names that a checkpoint has."""
        parameters = () if self._trained is None else self._trained.named_parameters()
        return {
            f"backbone.{name}": parameter.detach().clone()
            for name, parameter in parameters
            if parameter.requires_grad
        }

    def _dissolve(self) -> None:
        if self._built is not None:
            self._stands = {run_id: self.stand_of(run_id) for run_id in self.members}
            self._built = None

    @property
    def built(self) -> Built:
        """The members side by side, put there if they are not."""
        if self._built is None:
            self._built = self._build()
            self._stands = {}
        return self._built

    def _build(self) -> Built:
        index = {run_id: at for at, run_id in enumerate(self.members)}
        admitted = [
            Admitted(index[run_id], member.configuration, tuple(member.tasks), self._stands[run_id].state)
            for run_id, member in self.members.items()
        ]
        pack = Pack(self._trained or self.backbone, admitted, self.data.tasks, self.device)
        averages = {index[run_id]: stand.average for run_id, stand in self._stands.items()}
        optimizers = {}
        for run_id, at in index.items():
            optimizers[run_id] = MemberOptimizer(at, owned_by(at, pack, self._trained))
            optimizers[run_id].load(self._stands[run_id].optimizer)
        return Built(index, pack, Averages(pack, averages, self._averaged()), optimizers)

    def _averaged(self) -> Backbone | None:
        """The average of a trained backbone, where the run that trains it has one."""
        for run_id, member in self.members.items():
            if self._trained is not None and has_average(member.configuration):
                return self._trainable(member, self._stands[run_id].average).requires_grad_(False)
        return None

    @property
    def pack(self) -> Pack:
        return self.built.pack

    @property
    def index(self) -> Mapping[str, int]:
        return self.built.index

    @property
    def optimizers(self) -> dict[str, MemberOptimizer]:
        return self.built.optimizers

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
        added = _sums(penalties)
        self._backward(
            {
                at: {task: loss + added.get((at, task), 0.0) for task, loss in of.items()}
                for at, of in losses.items()
            }
        )
        add_losses(  # not before: a pass that runs out of memory is made again
            [(members[at][1], task, loss) for at, of in losses.items() for task, loss in of.items()]
            + [(members[at][1], penalty_of(task), penalty) for (at, task), penalty in added.items()]
        )
        step_together(self._step_of(run_id, member) for run_id, member in members)
        for run_id, member in members:
            member.tokens += int(batch.lengths[batch.member == self.index[run_id]].sum())
        self.built.averages.update()
        seconds = (time.perf_counter() - began) / len(members)
        for run_id, member in members:
            member.seconds["training"] += seconds
            if member.took_step() and member.stage.optimizer == "fresh":
                at = self.index[run_id]
                self.optimizers[run_id] = MemberOptimizer(at, owned_by(at, self.pack, self._trained))

    def _step_of(self, run_id: str, member: Member) -> tuple[MemberOptimizer, Training, float, list[str]]:
        """What `step_together` is told of a member."""
        tasks = [task for task, _ in member.plan.at(member.position)]
        factor = rate_factor(member.stage, member.position, member.plan.steps)
        return self.optimizers[run_id], member.stage, factor, tasks

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
        return outputs, (
            smoothness.penalties(embedded, outputs),
            self.built.averages.penalties(batch, outputs),
        )

    def _backward(self, losses: Mapping[int, Losses]) -> None:
        """Give every member the gradient of what its weighting makes of its tasks' losses.

        One pass serves all, but for gradient surgery, which has one for each task. A member's tasks are
        taken in its own order: that of the outputs depends on who else is in the pack.
        """
        weighted: list[tuple[float, Tensor]] = []
        objectives: list[Tensor] = []
        apart: dict[int, Surgery] = {}
        if self._trained is not None:
            self._trained.zero_grad()  # of a pass that ran out of memory
        for run_id, member in self.members.items():
            at = self.index[run_id]
            own = {task: losses[at][task] for task in member.tasks if task in losses[at]}
            weighting = member.configuration.weighting
            if isinstance(weighting, GradientSurgery):
                moving = PARTS if member.stage.trains is None else member.stage.trains
                draw = generator(member.run.seed, "surgery", member.step)
                apart[at] = Surgery(own, self.optimizers[run_id].owned, moving, draw)
            elif isinstance(weighting, StaticWeights):
                weighted += [(weighting.weights.get(task, 1.0), loss) for task, loss in own.items()]
            else:
                objectives.append(self._objective(run_id, own))
        together = torch.zeros((), device=self.device) + sum(objectives) + _weighted_sum(weighted)
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

    def _requests(self) -> tuple[list[Request], dict[tuple[int, str], np.ndarray]]:
        """Every member's examples of its next step, and their labels by (member, task)."""
        requests: list[Request] = []
        labels = {}
        for run_id, member in self.members.items():
            at = self.index[run_id]
            for task, number in member.plan.at(member.position):
                split = self.data.splits[task, "train"]
                indices = self.examples(member, task, number)
                requests.append(Request(at, task, split, indices, member.configuration.pairs))
                labels[at, task] = split.labels[indices]
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


def _sums(penalties: Sequence[Penalties]) -> dict[tuple[int, str], Tensor]:
    """All that is added to the loss of each (member, task)."""
    by_key: dict[tuple[int, str], list[Tensor]] = {}
    for of in penalties:
        for key, penalty in of.items():
            by_key.setdefault(key, []).append(penalty)
    return {key: torch.stack(found).sum() for key, found in by_key.items()}


def _weighted_sum(weighted: Sequence[tuple[float, Tensor]]) -> Tensor | float:
    """Of losses, each with its weight."""
    if not weighted:
        return 0.0
    losses = torch.stack([loss for _, loss in weighted])
    return (losses * put(np.array([weight for weight, _ in weighted]), losses.device).to(losses.dtype)).sum()


def _mean_losses(
    outputs: Sequence[TaskOutput], labels: Mapping[tuple[int, str], np.ndarray]
) -> dict[int, dict[str, Tensor]]:
    """Each member's mean loss by task, from what the heads gave and the labels by (member, task)."""
    found: dict[int, dict[str, Tensor]] = {}
    for output in outputs:
        name, device = output.task.name, output.outputs.device
        known = put(np.concatenate([labels[at, name] for at, _, _ in output.members]), device)
        losses = per_example(output.task, output.outputs, known)
        means = segment_means(losses, [stop - start for _, start, stop in output.members])
        for (at, _, _), mean in zip(output.members, means.unbind(), strict=True):
            found.setdefault(at, {})[name] = mean
    return found
