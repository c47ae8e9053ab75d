"""Low-rank factors at linear layers, and what a kind has beside them: names, shapes, first values, a bank."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from mtbert.adapters.base import Admitted, Shapes
from mtbert.bert import BertConfig
from mtbert.configuration import Configuration, Part
from mtbert.heads import head_shape
from mtbert.hooks import Site
from mtbert.schema import ConfigError
from mtbert.slots import Extent, Stack, State
from mtbert.tasks import Task
from mtbert.techniques import DoRA, LoRA, LowRank, Orthogonal
from mtbert.tensor_draws import torch_generator

SHARED = "shared"
Kind = LoRA | DoRA | Orthogonal


def scale(low_rank: LowRank) -> float:
    """The factor of B·A, by the configuration's `scaling`."""
    return {
        "alpha_over_rank": low_rank.alpha / low_rank.rank,
        "alpha_over_sqrt_rank": low_rank.alpha / math.sqrt(low_rank.rank),  # Kalajdzievski 2023
        "alpha": low_rank.alpha,  # report 004, Eq. 2
        "one": 1.0,
    }[low_rank.scaling]


def variants(low_rank: Kind, tasks: Sequence[str]) -> dict[str, LowRank]:
    """What is trained: one adapter for all tasks, or one for each."""
    if low_rank.sharing == "shared":
        return {SHARED: low_rank}
    return {task: low_rank.of_task(task) for task in tasks}


def sites(low_rank: LowRank, config: BertConfig, tasks: Sequence[str]) -> list[Site]:
    """The sites that an adapter for these tasks has, in the model's order.

    Raises:
        ConfigError: a layer that the model does not have.
    """
    layers = range(config.num_hidden_layers) if low_rank.layers is None else low_rank.layers
    for layer in layers:
        if layer >= config.num_hidden_layers:
            last = config.num_hidden_layers - 1
            raise ConfigError(f"low_rank.layers: expected layers from 0 to {last}, got {layer}")
    inner = [name for name in low_rank.targets if name not in ("pooler", "heads")]
    found = [f"layer.{layer}.{name}" for layer in layers for name in inner]
    if "pooler" in low_rank.targets:
        found.append("pooler")
    if "heads" in low_rank.targets:
        found += [f"heads.{task}" for task in tasks]
    return found


def site_shape(
    site: Site, config: BertConfig, tasks: Mapping[str, Task], configuration: Configuration
) -> tuple[int, int]:
    """[out, in] of the linear layer at a site."""
    if site.startswith("heads."):
        return head_shape(tasks[site.removeprefix("heads.")], config.hidden_size, configuration)
    return config.linear_shape(site.rsplit(".", 1)[-1])


def shapes(
    configuration: Configuration,
    config: BertConfig,
    tasks: Mapping[str, Task],
    of_layer: Callable[[int, int, int], Shapes],
) -> Shapes:
    """The tensors of every variant and site, by their names in a checkpoint.

    Args:
        of_layer: gives those of one linear layer from (rank, out, in).
    """
    assert configuration.low_rank is not None
    found: Shapes = {}
    for variant, low_rank in variants(configuration.low_rank, list(tasks)).items():
        of = list(tasks) if variant == SHARED else [variant]
        for site in sites(low_rank, config, of):
            out, into = site_shape(site, config, tasks, configuration)
            for name, shape in of_layer(low_rank.rank, out, into).items():
                found[key(variant, site, name)] = shape
    return found


def key(variant: str, site: Site, factor: str) -> str:
    """The name of a factor in a checkpoint."""
    return f"low_rank.{variant}.{site}.{factor}"


def initial(tensors: Shapes, seed: int) -> State:
    """A uniform within 1/√in of zero, as `nn.Linear` has it, the rest zero: at first nothing is altered."""
    state: State = {}
    for name, shape in tensors.items():
        if name.endswith(".A"):
            uniform = torch.rand(shape, generator=torch_generator(seed, "initial", name))
            state[name] = (uniform * 2 - 1) / math.sqrt(shape[1])
        else:
            state[name] = torch.zeros(shape)
    return state


class FactorBank:
    """Factors of several members over the same sites, one slot for each member and variant.

    What sits at a task's head is a bank of its own: it sees that task's tokens alone, and rests where
    other tasks train, though the rest of a shared adapter does not.
    """

    part: Part = "adapters"

    @staticmethod
    def trained_shapes(rank: int, out: int, into: int) -> Shapes:
        """What is trained for a linear layer [out, in], by name."""
        return {"A": (rank, into), "B": (out, rank)}

    @staticmethod
    def fixed_shapes(rank: int, out: int, into: int) -> Shapes:  # noqa: ARG004 - kinds differ in what they use
        """What the model has more for it that is not trained."""
        return {}

    def __init__(
        self,
        admitted: Sequence[Admitted],
        config: BertConfig,
        tasks: Mapping[str, Task],
        dtype: torch.dtype,
        device: str,
        head: str | None,
    ) -> None:
        """
        Args:
            tasks: all of the data's.
            head: the task whose head is adapted; None for the backbone.
        """
        self.members: list[int] = []
        self.variants: list[LowRank] = []
        self._slots: dict[tuple[int, str], int] = {}
        extents: list[dict[str, Extent]] = []
        for member in admitted:
            assert member.configuration.low_rank is not None
            own_tasks = {name: tasks[name] for name in member.tasks}
            own_shapes = shapes(member.configuration, config, own_tasks, self.trained_shapes)
            for variant, low_rank in variants(member.configuration.low_rank, member.tasks).items():
                prefix = f"low_rank.{variant}."
                own = {
                    name.removeprefix(prefix): Extent(name, shape)
                    for name, shape in own_shapes.items()
                    if name.startswith(prefix) and _head_of(name.removeprefix(prefix)) == head
                }
                if not own:
                    continue
                for task in member.tasks if variant == SHARED else (variant,):
                    if head in (None, task):
                        self._slots[member.index, task] = len(self.members)
                self.members.append(member.index)
                self.variants.append(low_rank)
                extents.append(own)
        states = [next(m.state for m in admitted if m.index == index) for index in self.members]
        self.stack = Stack(_largest(extents), extents, states, dtype, device)
        self.sites = frozenset(name.rsplit(".", 1)[0] for name in self.stack.shapes)
        self.scale_of_slot = [scale(of) for of in self.variants]
        self.scales = torch.tensor(self.scale_of_slot, dtype=dtype, device=device)
        self.rates: list[float | None] = [of.dropout for of in self.variants]

    def slot_of(self, member: int, task: str) -> int | None:
        return self._slots.get((member, task))

    def owners(self, site: Site) -> list[bool]:
        """By slot, whether it adapts the site; the other slots' tensors are padding."""
        return [f"{site}.B" in own for own in self.stack.extents]


def _head_of(name: str) -> str | None:
    """The task whose head a tensor adapts: `heads.sst.A` → sst; None for the backbone's."""
    return name.split(".")[1] if name.startswith("heads.") else None


def _largest(extents: Sequence[Mapping[str, Extent]]) -> dict[str, tuple[int, ...]]:
    """For each name the shape that holds every slot's."""
    found: dict[str, tuple[int, ...]] = {}
    for of_slot in extents:
        for name, extent in of_slot.items():
            known = found.get(name, extent.shape)
            found[name] = tuple(map(max, known, extent.shape))
    return found
