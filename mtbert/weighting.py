"""How the losses of a run's tasks become one objective: pure functions of the losses and explicit state.

What gradient surgery does with the losses instead is in `surgery`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, master_type
from mtbert.configuration import Configuration, Part
from mtbert.slots import Extent, Stack, State
from mtbert.tasks import Task
from mtbert.techniques import GradientSurgery, HuqPervin, StaticWeights, Uncertainty

Weighting = StaticWeights | Uncertainty | HuqPervin | GradientSurgery
Losses = Mapping[str, Tensor]
"""The mean loss of each task that a step has examples of."""


def objective(losses: Losses, weights: Mapping[str, Tensor | float], log_variances: Losses) -> Tensor:
    """What a step descends on: the sum of w·L, and of s/2 where a task's s = log σ² is trained.

    Args:
        weights: w of each task; one that is not named has 1.
        log_variances: s of each task; empty where none is trained.
    """
    terms = [weights.get(task, 1.0) * loss for task, loss in losses.items()]
    terms += [log_variances[task] / 2 for task in losses if task in log_variances]
    return torch.stack(terms).sum()


def loss_weights(
    weighting: Weighting, tasks: Mapping[str, Task], log_variances: Losses, latest: Losses
) -> Mapping[str, Tensor | float]:
    """What each task's loss is multiplied with now; a task that is not named has 1.

    Args:
        log_variances: of each task; asked for by `Uncertainty` alone.
        latest: the latest loss of each task seen, this step's included; asked for by `HuqPervin` alone.
    """
    if isinstance(weighting, Uncertainty):
        return {task: precision(tasks[task], s) for task, s in log_variances.items()}
    if isinstance(weighting, HuqPervin):
        return shares(latest)
    return weighting.weights if isinstance(weighting, StaticWeights) else {}


def precision(task: Task, log_variance: Tensor) -> Tensor:
    """1/2σ² of a squared error, 1/σ² of a cross-entropy (Kendall et al. 2018, Eq. 7 and 10); σ² = exp(s)."""
    weight = torch.exp(-log_variance)
    return weight / 2 if task.kind == "regression" else weight


def shares(losses: Losses) -> dict[str, Tensor]:
    """Each loss over the sum of all (Huq & Pervin 2022); equal shares where all are zero.

    Raises nothing and hides nothing where a loss is not finite: then the shares are not either.
    """
    if not losses:
        return {}
    total = torch.stack(list(losses.values())).sum()
    equal = torch.full_like(total, 1 / len(losses))
    return {task: torch.where(total == 0, equal, loss / total) for task, loss in losses.items()}


def shapes(configuration: Configuration, tasks: Mapping[str, Task]) -> Shapes:
    """Every tensor that a run's weighting trains, by its name in a checkpoint."""
    if not isinstance(configuration.weighting, Uncertainty):
        return {}
    return {_key(task): () for task in tasks}


def initial(configuration: Configuration, tasks: Mapping[str, Task]) -> State:
    """s = 0 of each task: σ = 1."""
    return {name: torch.zeros(shape) for name, shape in shapes(configuration, tasks).items()}


def _key(task: str) -> str:
    return f"weighting.{task}.log_variance"


class LogVarianceBank:
    """s = log σ² of each task of several members, a slot for each (member, task).

    They have the heads' learning rate, and rest where a stage does not train the heads.
    """

    part: Part = "heads"

    def __init__(self, admitted: Sequence[Admitted], device: str) -> None:
        slots = [(member.index, task) for member in admitted for task in member.tasks]
        self.members = [index for index, _ in slots]
        self._slots = {key: slot for slot, key in enumerate(slots)}
        extents = [{"log_variance": Extent(_key(task), ())} for _, task in slots]
        states = [member.state for member in admitted for _ in member.tasks]
        dtype = master_type(admitted[0].configuration.precision)
        self.stack = Stack({"log_variance": ()}, extents, states, dtype, device)

    def slot_of(self, member: int, task: str) -> int | None:
        return self._slots.get((member, task))

    def of_member(self, member: int) -> dict[str, Tensor]:
        """A member's log-variances by task."""
        leaf = self.stack.leaf["log_variance"]
        return {task: leaf[slot] for (owner, task), slot in self._slots.items() if owner == member}
