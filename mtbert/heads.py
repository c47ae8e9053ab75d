"""The tasks' output layers: dropout and a head over each example's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, SlotLinear
from mtbert.configuration import Configuration, Pairs, Part
from mtbert.head_functions import HeadInput, head_outputs, head_shapes
from mtbert.hooks import Site
from mtbert.schema import ConfigError
from mtbert.slots import Extent, SlotView, Stack, State
from mtbert.tasks import Task
from mtbert.techniques import CompressedHead, LinearHead, ProjectedHead, ReLUCosineHead
from mtbert.tensor_draws import torch_generator

INITIAL_SPREAD = 0.02  # standard deviation, as BERT's own (Devlin et al. 2019)


def vectors(task: Task, pairs: Pairs) -> int:
    """How many vectors an example has: two where its sentences are encoded apart."""
    return 2 if task.sentences == 2 and pairs.encoding == "separate" else 1


def head_shape(task: Task, hidden: int, configuration: Configuration) -> tuple[int, int]:
    """[outputs, features] of a task's linear head, to which a low-rank adapter may be added.

    Raises:
        ConfigError: the task's head is another.
    """
    head = configuration.heads.of_task(task.name)
    if not isinstance(head, LinearHead):
        raise ConfigError(
            f"configuration.low_rank.targets: expected no heads where heads.tasks.{task.name} is not linear, "
            f"got heads with {head.kind!r}; leave heads out of the targets, or give {task.name} a linear head"
        )
    return task.outputs, hidden * vectors(task, configuration.pairs)


def shapes(task: Task, hidden: int, configuration: Configuration) -> Shapes:
    """A head's tensors by their names in a checkpoint.

    Raises:
        ConfigError: the head cannot be this task's, or not with this encoding of pairs.
    """
    _check(task, configuration)
    head = configuration.heads.of_task(task.name)
    own = head_shapes(head, task.outputs, hidden, vectors(task, configuration.pairs))
    return {f"heads.{task.name}.{name}": shape for name, shape in own.items()}


def initial(task: Task, hidden: int, configuration: Configuration, seed: int) -> State:
    """Small normal weights and no bias."""
    state: State = {}
    for name, shape in shapes(task, hidden, configuration).items():
        normal = torch.randn(shape, generator=torch_generator(seed, "initial", name))
        state[name] = normal * INITIAL_SPREAD if name.endswith(".weight") else torch.zeros(shape)
    return state


class HeadBank:
    """The heads of several members for one task, all of one kind and width."""

    part: Part = "heads"

    def __init__(
        self,
        task: Task,
        admitted: Sequence[Admitted],
        hidden: int,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self.task = task
        self.members = [member.index for member in admitted]
        configuration = admitted[0].configuration
        self.head = configuration.heads.of_task(task.name)
        self.vectors = vectors(task, configuration.pairs)
        own = {
            name.removeprefix(f"{self.site}."): Extent(name, shape)
            for name, shape in shapes(task, hidden, configuration).items()
        }
        sizes = {name: extent.shape for name, extent in own.items()}
        states = [member.state for member in admitted]
        trained = configuration.heads.trained
        self.stack = Stack(sizes, [own] * len(admitted), states, dtype, device, trained)

    @property
    def site(self) -> Site:
        return f"heads.{self.task.name}"

    def slot_of(self, member: int, task: str) -> int | None:
        return self.members.index(member) if task == self.task.name and member in self.members else None

    def layers(self, members: Sequence[int]) -> SlotLinear:
        """The linear layers of these members, in their order."""
        weight, bias = self.stack.leaf["weight"], self.stack.leaf["bias"]
        if list(members) == self.members:
            return SlotLinear(weight, bias)
        at = [self.members.index(member) for member in members]
        slots = torch.tensor(at, dtype=torch.int64, device=weight.device)
        return SlotLinear(weight[slots], bias[slots])

    def forward(self, x: Tensor, view: SlotView, drop: Callable[[Site, Tensor], Tensor]) -> Tensor:
        """[examples, features] → [examples, outputs], in the heads' own precision

        Args:
            drop: dropout at a site within the head. [examples, …] in and out
        """

        def drop_within(narrow: Tensor) -> Tensor:
            return view.spread(drop(f"{self.site}.compression", view.collect(narrow)))

        weights = {name: view.of_slots(leaf) for name, leaf in self.stack.leaf.items()}
        spread = view.spread(x.to(self.stack.values.dtype))
        return view.collect(head_outputs(self.head, HeadInput(spread, self.vectors, weights, drop_within)))


def _check(task: Task, configuration: Configuration) -> None:
    """The head is one for this task, and its pairs are encoded as it needs them."""
    head = configuration.heads.of_task(task.name)
    if isinstance(head, (LinearHead, CompressedHead)):
        return
    where = f"configuration.heads.tasks.{task.name}"
    if task.sentences == 1:
        raise ConfigError(
            f"{where}: expected linear or compressed where the task has one sentence, got {head.kind!r}, "
            "which compares two"
        )
    if task.outputs != 1:
        raise ConfigError(
            f"{where}: expected linear or compressed for a classification in {task.outputs} classes, "
            f"got {head.kind!r}, which gives one value"
        )
    if isinstance(head, ReLUCosineHead) and task.kind != "regression":
        raise ConfigError(
            f"{where}: expected another head than 'relu_cosine' for a {task.kind} task: it is never "
            "negative, and no such logit says no; linear_cosine is one for both"
        )
    if not isinstance(head, ProjectedHead) and configuration.pairs.encoding != "separate":
        raise ConfigError(
            f"configuration.pairs.encoding: expected separate with heads.tasks.{task.name}: {head.kind}, "
            f"which compares the sentences' own vectors, got {configuration.pairs.encoding!r}"
        )
