"""Trained biases of the backbone's linear layers, pooler included, as differences from the frozen ones.

Where the backbone's own tensors are trained, their biases need no second one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, SlotLinear, master_type
from mtbert.adapters.low_rank import trained_backbone
from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import Configuration, Part
from mtbert.hooks import Site
from mtbert.linear import Linear
from mtbert.slots import Extent, SlotView, Stack, State
from mtbert.tasks import Task
from mtbert.techniques import LAYER_TARGETS


def shapes(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Shapes:
    """Every bias by its name in a checkpoint."""
    if configuration.biases == "frozen":
        return {}
    trained = trained_backbone(configuration, config, tasks)
    layers = range(config.num_hidden_layers)
    sites = [f"layer.{layer}.{name}" for layer in layers for name in LAYER_TARGETS] + ["pooler"]
    return {
        f"biases.{site}": (config.linear_shape(site.rsplit(".", 1)[-1])[0],)
        for site in sites
        if f"{site}.bias" not in trained
    }


def total(
    configuration: Configuration,  # noqa: ARG001 - the signature of every place's
    config: BertConfig,  # noqa: ARG001
    tasks: Mapping[str, Task],  # noqa: ARG001
) -> int:
    """None: they replace the backbone's."""
    return 0


def initial(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], seed: int) -> State:  # noqa: ARG001
    """No difference."""
    return {name: torch.zeros(shape) for name, shape in shapes(configuration, config, tasks).items()}


def banks(
    admitted: Sequence[Admitted],
    backbone: Backbone,  # noqa: ARG001 - the signature of every place's
    tasks: Mapping[str, Task],  # noqa: ARG001
    device: str,
) -> Sequence[BiasBank]:
    """One bank for all that train biases."""
    training = [member for member in admitted if any(name.startswith("biases.") for name in member.state)]
    return [BiasBank(training, device)] if training else []


class BiasBank:
    """The biases of several members, a slot for each."""

    part: Part = "adapters"

    def __init__(self, admitted: Sequence[Admitted], device: str) -> None:
        self.members = [member.index for member in admitted]
        states = [member.state for member in admitted]
        own = {
            name.removeprefix("biases."): Extent(name, tuple(value.shape))
            for name, value in sorted(
                states[0].items()
            )  # all members' backbones are frozen, or there is one member
            if name.startswith("biases.")
        }
        sizes = {site: extent.shape for site, extent in own.items()}
        dtype = master_type(admitted[0].configuration.precision)
        self.stack = Stack(sizes, [own] * len(admitted), states, dtype, device)
        self.sites = frozenset(sizes)
        self.rates: list[float | None] = [None] * len(admitted)

    def slot_of(self, member: int, task: str) -> int | None:  # noqa: ARG002 - one for all tasks
        return self.members.index(member) if member in self.members else None

    def adapt(
        self,
        site: Site,
        x: Tensor,  # noqa: ARG002 - the signature of every bank's
        dropped: Tensor,  # noqa: ARG002
        y: Tensor,
        linear: Linear | SlotLinear,  # noqa: ARG002
        view: SlotView,
    ) -> Tensor:
        """y + the slot's difference. [rows, out]"""
        difference = view.of_slots(self.stack.leaf[site]).to(y.dtype)
        if view.whole:
            return y + difference[0]
        return y + view.collect(difference[:, None, :].expand(-1, view.width, -1))
