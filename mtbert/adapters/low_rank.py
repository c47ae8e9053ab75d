"""The place of the low-rank adapters: which is meant, what it trains, and who can share a bank."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from mtbert.adapters import factors
from mtbert.adapters.base import Admitted, Shapes, SiteBank, master_type, size
from mtbert.adapters.factors import sites, variants
from mtbert.adapters.lora import LoRABank
from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import Configuration
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import LowRank


def shapes(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Shapes:
    """Every tensor that is trained, by its name in a checkpoint."""
    return {} if configuration.low_rank is None else factors.shapes(configuration, config, tasks)


def total(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> int:
    """The parameters that the model has more."""
    return size(shapes(configuration, config, tasks))


def initial(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], seed: int) -> State:
    """The tensors before the first step."""
    return {} if configuration.low_rank is None else factors.initial(configuration, config, tasks, seed)


def stack_key(low_rank: LowRank) -> Hashable:
    """Runs with equal keys share a bank; ranks may differ, lower ones are padded."""
    return (type(low_rank), low_rank.targets, low_rank.layers)


def banks(
    admitted: Sequence[Admitted], backbone: Backbone, tasks: Mapping[str, Task], device: str
) -> Sequence[SiteBank]:
    """A bank for each stack key in the backbone, and one for each of its heads."""
    by_key: dict[Hashable, list[Admitted]] = {}
    for member in admitted:
        if member.configuration.low_rank is not None:
            by_key.setdefault(stack_key(member.configuration.low_rank), []).append(member)
    found: list[SiteBank] = []
    for group in by_key.values():
        dtype = master_type(group[0].configuration.precision)
        for head in (None, *tasks):
            bank = LoRABank(group, backbone.config, tasks, dtype, device, shapes, head)
            if bank.members:
                found.append(bank)
    return found


def trained_backbone(
    configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]
) -> list[str]:
    """The backbone's own tensors that are trained: none, or all but the layers that carry an adapter."""
    if configuration.backbone == "frozen":
        return []
    carrying: set[str] = set()
    if configuration.low_rank is not None:
        for of in variants(configuration.low_rank, list(tasks)).values():
            carrying.update(sites(of, config, []))
    return [name for name in config.shapes() if name.rsplit(".", 1)[0] not in carrying]
