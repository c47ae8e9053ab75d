"""The tasks' output layers: dropout and a linear layer over each example's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, SlotLinear
from mtbert.configuration import Configuration, Part
from mtbert.draws import torch_generator
from mtbert.slots import Extent, SlotView, Stack, State
from mtbert.tasks import Task

INITIAL_SPREAD = 0.02  # standard deviation, as BERT's own (Devlin et al. 2019)


def head_shape(task: Task, hidden: int, configuration: Configuration) -> tuple[int, int]:
    """[outputs, features] of a task's linear head."""
    vectors = 2 if task.sentences == 2 and configuration.pairs.encoding == "separate" else 1
    return task.outputs, hidden * vectors


def shapes(task: Task, hidden: int, configuration: Configuration) -> Shapes:
    """A head's tensors by their names in a checkpoint."""
    shape = head_shape(task, hidden, configuration)
    return {f"heads.{task.name}.weight": shape, f"heads.{task.name}.bias": shape[:1]}


def initial(task: Task, hidden: int, configuration: Configuration, seed: int) -> State:
    """Small normal weights and no bias."""
    state: State = {}
    for name, shape in shapes(task, hidden, configuration).items():
        normal = torch.randn(shape, generator=torch_generator(seed, "initial", name))
        state[name] = normal * INITIAL_SPREAD if name.endswith(".weight") else torch.zeros(shape)
    return state


class HeadBank:
    """The heads of several members for one task, all of one width."""

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
        own = {
            name.rsplit(".", 1)[1]: Extent(name, shape)
            for name, shape in shapes(task, hidden, configuration).items()
        }
        sizes = {name: extent.shape for name, extent in own.items()}
        states = [member.state for member in admitted]
        trained = configuration.heads.trained
        self.stack = Stack(sizes, [own] * len(admitted), states, dtype, device, trained)

    @property
    def site(self) -> str:
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

    def forward(self, x: Tensor, view: SlotView) -> Tensor:
        """[examples, features] → [examples, outputs], in the heads' own precision"""
        weight = view.of_slots(self.stack.leaf["weight"])  # [slots, outputs, features]
        bias = view.of_slots(self.stack.leaf["bias"])  # [slots, outputs]
        spread = view.spread(x.to(weight.dtype))
        return view.collect(torch.baddbmm(bias[:, None, :], spread, weight.mT))
