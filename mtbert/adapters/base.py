"""What every adapter is made of: names and shapes, initial values, and a bank that stacks several runs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from mtbert.bert import Backbone, BertConfig
from mtbert.configuration import Configuration, Part
from mtbert.hooks import Rows, Site
from mtbert.linear import Linear
from mtbert.slots import SlotView, Stack, State
from mtbert.tasks import Task
from mtbert.tokens import TokenBatch

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Admitted:
    """A member as banks see it: its place in the pack, what it is, and its tensors."""

    index: int
    configuration: Configuration
    tasks: tuple[str, ...]
    state: State


class Bank(Protocol):
    """The weights of one kind for several members, stacked."""

    stack: Stack

    @property
    def part(self) -> Part:
        """Whose learning rate and weight decay they take."""

    @property
    def members(self) -> Sequence[int]:
        """By slot, the pack's index of its member."""

    def slot_of(self, member: int, task: str) -> int | None:
        """The slot that a member uses for a task, or none."""


class SlotLinear(NamedTuple):
    """A linear layer of each active slot's own, y = x Wᵀ + b: what adapters have before them at the heads.

    Attributes:
        weight: [active slots, out, in]; `bias`: [active slots, out].
    """

    weight: Tensor
    bias: Tensor


class SiteBank(Bank, Protocol):
    """A bank that alters what linear layers give."""

    sites: frozenset[Site]

    @property
    def rates(self) -> Sequence[float | None]:
        """By slot, the dropout of what it reads unless the stage has its own; None where there is none."""

    def adapt(
        self, site: Site, x: Tensor, dropped: Tensor, y: Tensor, linear: Linear | SlotLinear, view: SlotView
    ) -> Tensor:
        """From the layer's input x [rows, in], that after dropout, and y = W x + b [rows, out].

        Args:
            dropped: x itself where nothing is dropped.
            linear: the layer; at the heads each active slot's own, in the order of the view's.
        """


@runtime_checkable
class BranchBank(Bank, Protocol):
    """A bank that adds to what a LayerNorm is given."""

    sites: frozenset[Site]

    @property
    def rates(self) -> Sequence[float | None]:
        """By slot, the dropout of what it adds unless the stage has its own."""

    def transform(
        self, site: Site, x: Tensor, batch: TokenBatch, tokens: SlotView, asked: SlotView, rows: Rows
    ) -> Tensor:
        """What is added at a site, zero in rows that no slot takes. [asked rows, hidden]

        Args:
            x: the layer's input, of all tokens. [tokens, hidden]
            tokens: the token rows that each slot takes; `asked` the rows that are wanted, of kind `rows`.
        """


class Place(Protocol):
    """A place of a configuration that adds tensors: a module of this package."""

    def shapes(self, configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> Shapes:
        """Every tensor that a run trains here, by its name in a checkpoint; none where the place is empty.

        Args:
            tasks: those that the run trains.
        """

    def total(self, configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task]) -> int:
        """The parameters that the model has more for it, fixed ones included."""

    def initial(
        self, configuration: Configuration, config: BertConfig, tasks: Mapping[str, Task], seed: int
    ) -> State:
        """These tensors before the first step."""

    def banks(
        self, admitted: Sequence[Admitted], backbone: Backbone, tasks: Mapping[str, Task], device: str
    ) -> Sequence[SiteBank | BranchBank]:
        """Banks for all those members that have something here.

        Args:
            tasks: all of the data's, trained or not.
        """


def master_type(precision: str) -> torch.dtype:
    """What adapters and heads are kept in: never less than float32."""
    return torch.float64 if precision == "float64" else torch.float32


def size(shapes: Shapes) -> int:
    """How many numbers these tensors hold."""
    return sum(map(prod, shapes.values()))
