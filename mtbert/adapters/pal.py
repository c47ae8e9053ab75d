"""A task's own function beside BERT's layers: projected attention layers and low-rank ones.

LN(h + SA(h) + TS(h)) with TS(h) = V^D g(V^E h) (Stickland & Murray 2019, Eq. 6 and 7), or, as report 004
has it too, beside the attention alone, inside the first normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor

from mtbert.adapters.base import Admitted, Shapes, master_type, size
from mtbert.attention import AttentionView, attention
from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import Configuration, Part
from mtbert.heads import INITIAL_SPREAD
from mtbert.hooks import Rows, Site
from mtbert.schema import ConfigError
from mtbert.slots import Extent, SlotView, Stack, State
from mtbert.tasks import Task
from mtbert.techniques import PAL, PALForm
from mtbert.tensor_draws import torch_generator
from mtbert.tokens import TokenBatch


@dataclass(frozen=True)
class Group:
    """Layers whose functions are of one form. Runs with equal groups share a bank.

    Attributes:
        shared: what stands in the names of tensors that these layers share.
    """

    form: PALForm
    place: Literal["layer", "attention"]
    shared: str
    layers: tuple[int, ...]

    def name(self, linear: str, layer: int) -> str:
        """The name of a linear layer's tensors, the same for all layers that share it."""
        of = self.form.projections if linear in ("encoder", "decoder") else self.form.attention
        return f"{self.shared}.{linear}" if of == "shared" else f"layer.{layer}.{linear}"

    def shapes(self, hidden: int) -> Shapes:
        """Every tensor of one task: weights [out, in] and biases [out]."""
        small = self.form.hidden
        linears = {"encoder": (small, hidden), "decoder": (hidden, small)}
        if self.form.form == "attention":
            linears |= dict.fromkeys(("query", "key", "value"), (small, small))
        found: Shapes = {}
        for layer in self.layers:
            for linear, shape in linears.items():
                found[f"{self.name(linear, layer)}.weight"] = shape
                found[f"{self.name(linear, layer)}.bias"] = shape[:1]
        return found


def groups(parallel: PAL, config: BertConfig) -> list[Group]:
    """The layers by their form: all of one, or lower and upper ones.

    Raises:
        ConfigError: a layer that the model does not have.
    """
    last = config.num_hidden_layers - 1
    layers = tuple(range(last + 1)) if parallel.layers is None else parallel.layers
    if layers[-1] > last:
        raise ConfigError(f"parallel.layers: expected layers from 0 to {last}, got {layers[-1]}")
    upper = parallel.upper
    if upper is None:
        return [Group(_form(parallel), parallel.place, "shared", layers)]
    if upper.start > last:
        raise ConfigError(f"parallel.upper.start: expected a layer from 1 to {last}, got {upper.start}")
    parts = {"shared": tuple(layer for layer in layers if layer < upper.start)}
    parts["upper"] = tuple(layer for layer in layers if layer >= upper.start)
    forms = {"shared": _form(parallel), "upper": _form(upper)}
    return [Group(forms[name], parallel.place, name, part) for name, part in parts.items()]


def _form(of: PALForm) -> PALForm:
    """The form alone of what has more fields, so that equal forms compare equal."""
    return PALForm(**{field.name: getattr(of, field.name) for field in fields(PALForm)})


def tasks_of(parallel: PAL, tasks: Sequence[str]) -> list[str]:
    """Those of the tasks that have a function of their own."""
    return [task for task in tasks if parallel.tasks is None or task in parallel.tasks]


def key(task: str, name: str) -> str:
    """The name of a tensor in a checkpoint."""
    return f"parallel.{task}.{name}"


def shapes(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Shapes:
    """Every tensor that is trained, by its name in a checkpoint."""
    parallel = configuration.parallel
    if parallel is None:
        return {}
    return {
        key(task, name): shape
        for task in tasks_of(parallel, list(tasks))
        for group in groups(parallel, config)
        for name, shape in group.shapes(config.hidden_size).items()
    }


def total(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> int:
    """The parameters that the model has more."""
    return size(shapes(configuration, config, tasks))


def initial(configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], seed: int) -> State:
    """V^D zero, so that at first nothing is altered; other weights normal as BERT's own, biases zero.

    Neither the paper nor a report says how V^D starts.
    """
    state: State = {}
    for name, shape in shapes(configuration, config, tasks).items():
        if name.endswith((".bias", ".decoder.weight")):
            state[name] = torch.zeros(shape)
        else:
            normal = torch.randn(shape, generator=torch_generator(seed, "initial", name))
            state[name] = normal * INITIAL_SPREAD
    return state


def banks(
    admitted: Sequence[Admitted],
    backbone: Backbone,
    tasks: Mapping[str, Task],  # noqa: ARG001 - the signature of every place's
    device: str,
) -> Sequence[PALBank]:
    """A bank for each group of layers that some members have alike."""
    by_group: dict[Group, list[Admitted]] = {}
    for member in admitted:
        parallel = member.configuration.parallel
        if parallel is not None and tasks_of(parallel, member.tasks):
            for group in groups(parallel, backbone.config):
                by_group.setdefault(group, []).append(member)
    hidden = backbone.config.hidden_size
    return [PALBank(group, members, hidden, device) for group, members in by_group.items()]


class PALBank:
    """The functions of several members' tasks over the same layers, a slot for each member and task."""

    part: Part = "adapters"

    def __init__(self, group: Group, admitted: Sequence[Admitted], hidden: int, device: str) -> None:
        self.group = group
        self.members: list[int] = []
        self.rates: list[float | None] = []
        self._slots: dict[tuple[int, str], int] = {}
        extents: list[dict[str, Extent]] = []
        states: list[State] = []
        sizes = group.shapes(hidden)
        for member in admitted:
            parallel = member.configuration.parallel
            assert parallel is not None
            for task in tasks_of(parallel, member.tasks):
                self._slots[member.index, task] = len(self.members)
                self.members.append(member.index)
                self.rates.append(parallel.task_dropout.get(task, parallel.dropout))
                extents.append({name: Extent(key(task, name), shape) for name, shape in sizes.items()})
                states.append(member.state)
        dtype = master_type(admitted[0].configuration.precision)
        self.stack = Stack(sizes, extents, states, dtype, device)
        beside = ".attention" if group.place == "attention" else ""
        self._layers = {f"layer.{layer}{beside}": layer for layer in group.layers}
        self.sites = frozenset(self._layers)
        self._views: WeakKeyDictionary[SlotView, AttentionView] = WeakKeyDictionary()

    def slot_of(self, member: int, task: str) -> int | None:
        return self._slots.get((member, task))

    def transform(
        self, site: Site, x: Tensor, batch: TokenBatch, tokens: SlotView, asked: SlotView, rows: Rows
    ) -> Tensor:
        """TS(x), each row with its slot's weights. [asked rows, hidden]"""
        layer, form = self._layers[site], self.group.form
        asking = x if rows == "token" else x.index_select(0, batch.first_rows)
        low = self._linear("encoder", layer, asked.spread(asking), asked)
        if form.form == "attention":
            every = low if rows == "token" else self._linear("encoder", layer, tokens.spread(x), tokens)
            query = self._linear("query", layer, low, asked)
            keys, values = (self._linear(name, layer, every, tokens) for name in ("key", "value"))
            q, k, v = (cells.flatten(0, 1) for cells in (query, keys, values))
            mixed = attention(q, k, v, form.heads, self._view(batch, tokens, asked, rows), None)
            low = mixed.view(low.shape)
        elif form.activation == "gelu":
            low = F.gelu(low)
        added = self._linear("decoder", layer, low, asked)
        if form.form == "attention" and form.activation == "gelu":
            added = F.gelu(added)
        return asked.collect(added)

    def _linear(self, linear: str, layer: int, cells: Tensor, view: SlotView) -> Tensor:
        """[active slots, width, in] → [active slots, width, out]"""
        name = self.group.name(linear, layer)
        weight = view.of_slots(self.stack.leaf[f"{name}.weight"]).to(cells.dtype)  # [active slots, out, in]
        bias = view.of_slots(self.stack.leaf[f"{name}.bias"]).to(cells.dtype)  # [active slots, out]
        return torch.baddbmm(bias[:, None, :], cells, weight.mT)

    def _view(self, batch: TokenBatch, tokens: SlotView, asked: SlotView, rows: Rows) -> AttentionView:
        """How the slots' cells, end to end, attend to each other: made once for a batch."""
        if asked not in self._views:
            self._views[asked] = _attention_of_cells(batch, tokens, asked, rows)
        return self._views[asked]


def _attention_of_cells(batch: TokenBatch, tokens: SlotView, asked: SlotView, rows: Rows) -> AttentionView:
    """Attention within the sequences that some slot takes; other members' have no cells."""
    if tokens.whole:
        return batch.attention_all if rows == "token" else batch.attention_first
    count, device = tokens.cells.numel(), batch.ids.device
    starts = tokens.cell_of_row[batch.starts]
    taken = np.flatnonzero(starts < count)
    starts, lengths = starts[taken], batch.lengths[taken]
    if rows == "token":
        return AttentionView(starts, lengths, count, "all", device)
    queries = (asked.cell_of_row[taken], asked.cells.numel())
    return AttentionView(starts, lengths, count, "first", device, queries)
