"""The place of the low-rank adapters: which is meant, what it trains, and who can share a bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mtbert.adapters import factors, orthogonal
from mtbert.adapters.base import Admitted, Shapes, SiteBank, master_type, size
from mtbert.adapters.dora import DoRABank
from mtbert.adapters.factors import SHARED, sites, variants
from mtbert.adapters.lora import LoRABank
from mtbert.adapters.orthogonal import OrthogonalBank
from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import Configuration
from mtbert.heads import head_shape
from mtbert.slots import State
from mtbert.tasks import Task
from mtbert.techniques import DoRA, LoRA, LowRank, Orthogonal

KINDS: Mapping[type[LowRank], type[LoRABank] | type[DoRABank]] = {
    LoRA: LoRABank,
    DoRA: DoRABank,
    Orthogonal: OrthogonalBank,
}
StackKey = tuple[type[LowRank], tuple[str, ...], tuple[int, ...] | None]


def shapes(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Shapes:
    """Every tensor that is trained, by its name in a checkpoint."""
    if configuration.low_rank is None:
        return {}
    kind = KINDS[type(configuration.low_rank)]
    return factors.shapes(configuration, config, tasks, kind.trained_shapes)


def total(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> int:
    """The parameters that the model has more, fixed ones at every layer that has them."""
    trained = size(shapes(configuration, config, tasks))
    if configuration.low_rank is None:
        return trained
    kind = KINDS[type(configuration.low_rank)]
    return trained + size(factors.shapes(configuration, config, tasks, kind.fixed_shapes))


def initial(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], seed: int) -> State:
    """The tensors before the first step."""
    return factors.initial(shapes(configuration, config, tasks), seed)


def check(
    configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], trained: Sequence[str]
) -> None:
    """Refuse what does not fit the model and the data.

    Args:
        tasks: all of the data's; `trained`: those of the run.

    Raises:
        ConfigError: an orthogonal adapter whose basis has too few columns.
    """
    if isinstance(configuration.low_rank, Orthogonal):
        orthogonal.check(configuration, config, tasks, trained)


def stack_key(low_rank: LowRank) -> StackKey:
    """Runs with equal keys share a bank; ranks may differ, lower ones are padded."""
    return (type(low_rank), low_rank.targets, low_rank.layers)


def banks(
    admitted: Sequence[Admitted], backbone: Backbone, tasks: Mapping[str, Task], device: str
) -> Sequence[SiteBank]:
    """A bank for each stack key in the backbone, and one for each shape of each of its heads."""
    by_key: dict[StackKey, list[Admitted]] = {}
    for member in admitted:
        if member.configuration.low_rank is not None:
            by_key.setdefault(stack_key(member.configuration.low_rank), []).append(member)
    found: list[SiteBank] = []
    for (kind, *_), group in by_key.items():
        dtype = master_type(group[0].configuration.precision)
        for head, alike in [(None, group), *_by_head(group, backbone.config, tasks)]:
            bank = KINDS[kind](alike, backbone.config, tasks, dtype, device, head)
            if bank.members:
                found.append(bank)
    return found


def _by_head(
    group: Sequence[Admitted], config: BertConfig, tasks: Mapping[str, Task]
) -> list[tuple[str, list[Admitted]]]:
    """The members by each task at whose head they have an adapter, and by the shape of that head."""
    found: dict[tuple[str, tuple[int, int]], list[Admitted]] = {}
    for member in group:
        assert member.configuration.low_rank is not None
        for variant, low_rank in variants(member.configuration.low_rank, member.tasks).items():
            for task in member.tasks if variant == SHARED else (variant,):
                if "heads" in low_rank.targets:
                    shape = head_shape(tasks[task], config.hidden_size, member.configuration)
                    found.setdefault((task, shape), []).append(member)
    return [(task, alike) for (task, _), alike in found.items()]


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
