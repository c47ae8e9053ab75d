"""Weights of several runs stacked over a leading dimension, and the rows of a batch that each slot takes.

No operation here combines rows or weights of two slots, so that one run's NaN stays its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mtbert.devices import put

State = dict[str, Tensor]
"""A member's tensors by name, as its checkpoint holds them."""


WIDTH_MULTIPLE = 16  # every new shape costs a search for its kernels: few widths, few searches


class Extent(NamedTuple):
    """Where a slot's own tensor lies within the stack's padded one: the first entries of each dimension."""

    key: str
    shape: tuple[int, ...]


class Stack:
    """Tensors of equal names for several slots, in one buffer with one for their gradients.

    A slot whose tensor is smaller is padded with zeros. Padding stays exactly zero where its gradient
    is: callers pad such that it is (a LoRA's spare rows multiply spare columns that are zero).

    Attributes:
        values, gradients: [slots, elements].
        leaf: by name, [slots, *shape]: differentiable views of `values`, whose `.grad` views `gradients`;
            views without a gradient within `detached` and `replaced`.
        extents: by slot and name, the slot's own part and its key; a name may be missing from a slot.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        extents: Sequence[Mapping[str, Extent]],
        states: Sequence[State],
        dtype: torch.dtype,
        device: str,
        trained: bool = True,
    ) -> None:
        elements = sum(int(np.prod(shape)) for shape in shapes.values())
        self.values = torch.zeros(len(extents), elements, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.values) if trained else None
        self.extents = extents
        self.shapes = dict(shapes)
        self.leaf: dict[str, Tensor] = {}
        for name, value in self._views(self.values).items():
            if self.gradients is not None:
                value.requires_grad_()
                value.grad = self._views(self.gradients)[name]
            self.leaf[name] = value
        for slot, state in enumerate(states):
            self.write(self.values[slot], slot, state)

    def detached(self) -> AbstractContextManager[None]:
        """Within the block nothing that is computed with these weights gives them a gradient."""
        return self.replaced(self.values)

    @contextmanager
    def replaced(self, values: Tensor) -> Iterator[None]:
        """Within the block others, without a gradient, stand in these values' place. [slots, elements]"""
        kept = self.leaf
        self.leaf = self._views(values)
        try:
            yield
        finally:
            self.leaf = kept

    def _views(self, buffer: Tensor) -> dict[str, Tensor]:
        """[slots, elements] cut into [slots, *shape] by name."""
        views, begin = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            views[name] = buffer[:, begin : begin + size].view(buffer.shape[0], *shape)
            begin += size
        return views

    def read(self, flat: Tensor, slot: int) -> State:
        """A slot's own tensors, copied out of a flat row: of `values`, or of what an optimizer keeps."""
        views = self._views(flat.detach().unsqueeze(0))
        return {
            extent.key: views[name][0][tuple(slice(size) for size in extent.shape)].clone()
            for name, extent in self.extents[slot].items()
        }

    @torch.no_grad()
    def write(self, flat: Tensor, slot: int, state: State) -> None:
        """The inverse of `read`; what the slot does not have stays zero."""
        views = self._views(flat.unsqueeze(0))
        for name, extent in self.extents[slot].items():
            views[name][0][tuple(slice(size) for size in extent.shape)].copy_(state[extent.key])


class Stretch(NamedTuple):
    """Consecutive rows that one slot takes."""

    slot: int
    start: int
    stop: int


class SlotView:
    """The rows of each active slot as one rectangle [slots, width, …], and the way back.

    Where one slot takes all rows, nothing is gathered. Cells past a slot's rows repeat its own first row.

    Attributes:
        slots: the active ones, ascending; `whole`: one of them takes all rows.
        cell_of_row: unless whole, int64 [rows]: where each row lies among the cells, end to end; their
            number where no slot takes it.
    """

    def __init__(self, stretches: Sequence[Stretch], rows: int, device: torch.device) -> None:
        by_slot: dict[int, list[np.ndarray]] = {}
        for stretch in stretches:
            by_slot.setdefault(stretch.slot, []).append(np.arange(stretch.start, stretch.stop))
        self.slots = sorted(by_slot)
        self.whole = len(self.slots) == 1 and sum(map(len, by_slot[self.slots[0]])) == rows
        if self.whole or not self.slots:
            return
        taken = [np.concatenate(by_slot[slot]) for slot in self.slots]
        width = -(-max(map(len, taken)) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE
        cells = np.stack([np.concatenate([of, np.full(width - len(of), of[0])]) for of in taken])
        into = np.full(rows, cells.size, dtype=np.int64)  # one past the end: a row of zeros
        from_cell = np.full(cells.shape, rows, dtype=np.int64)
        for at, of in enumerate(taken):
            into[of] = at * width + np.arange(len(of))
            from_cell[at, : len(of)] = of
        self.width, self.cell_of_row = width, into
        self._spread = torch.empty(0), torch.empty(0)
        self._all_taken, self._all_filled = bool((into < cells.size).all()), bool((from_cell < rows).all())
        self.cells, self.into, self.from_cell = (
            put(index.reshape(-1), device) for index in (cells, into, from_cell)
        )

    def spread(self, x: Tensor) -> Tensor:
        """[rows, features] → [active slots, width, features]; the last one is remembered."""
        if self.whole:
            return x.unsqueeze(0)
        known, cells = self._spread
        if known is not x or cells.requires_grad != (x.requires_grad and torch.is_grad_enabled()):
            gathered: Tensor = _Gather.apply(x, self.cells, self.into, True, self._all_taken)  # type: ignore[no-untyped-call]
            cells = gathered.view(len(self.slots), self.width, x.shape[-1])
            self._spread = x, cells
        return cells

    def collect(self, cells: Tensor) -> Tensor:
        """[active slots, width, features] → [rows, features], zero where no slot is."""
        if self.whole:
            return cells.squeeze(0)
        flat = cells.reshape(-1, cells.shape[-1])
        rows: Tensor = _Gather.apply(flat, self.into, self.from_cell, self._all_taken, self._all_filled)  # type: ignore[no-untyped-call]
        return rows

    def of_slots(self, stacked: Tensor) -> Tensor:
        """[slots, …] → [active slots, …]"""
        if len(self.slots) == stacked.shape[0]:
            return stacked
        if len(self.slots) == 1:
            return stacked[self.slots[0] : self.slots[0] + 1]
        return stacked[put(np.array(self.slots), stacked.device)]


def segment_means(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """The mean of each stretch of entries, which are of these lengths, end to end. [stretches]"""
    return torch.segment_reduce(x, "mean", lengths=put(np.array(lengths), x.device), unsafe=True)


class _Gather(torch.autograd.Function):
    """Rows by index, a row of zeros past the end; each row's gradient comes from one place or none.

    An ordinary gather adds up the gradients of repeated rows; here repeated cells are padding, and
    their gradients are dropped rather than multiplied with zero.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, within: bool, back_within: bool) -> Tensor:
        """
        Args:
            within, back_within: whether `index` and `back` never point past the end.
        """
        ctx.save_for_backward(back)
        ctx.back_within = back_within
        return _rows_or_zeros(x, index, within)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (back,) = ctx.saved_tensors
        return _rows_or_zeros(grad, back, ctx.back_within), None, None, None, None


def _rows_or_zeros(x: Tensor, index: Tensor, within: bool) -> Tensor:
    """Rows by index; zeros where it points past the end, which `within` rules out."""
    if not within:
        x = torch.cat([x, x.new_zeros(1, x.shape[-1])])
    return x.index_select(0, index)
