"""Scaled dot-product attention over sequences that lie end to end, as one differentiable function.

Only here is anything padded: sequences are gathered into a few rectangles, by length, and back; on a GPU a
kernel takes them as they lie (`kernels/attention.py`). A cell past a sequence's end gathers that sequence's
own first token, so that no member's numbers, not even a NaN times zero, reach another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from mtbert import kernels
from mtbert.devices import put

if TYPE_CHECKING:
    from mtbert.kernels.attention import Extents, Mask

WIDTH_MULTIPLE = 16  # softmax is several times slower at odd widths


class Factors(Protocol):
    """Dropout of attention probabilities: its factors for a rectangle, or what a kernel makes them from."""

    def __call__(self, rectangle: Rectangle, dtype: torch.dtype) -> Tensor:
        """[sequences * heads, queries, width]"""

    def mask(self, longest: int) -> Mask:
        """Of sequences of at most so many tokens."""


@dataclass(frozen=True, eq=False)
class Rectangle:
    """Sequences of similar length, padded to one width.

    Attributes:
        sequences: int64 [n], which of the batch's.
        lengths: int64 [n].
        key_rows: int64 [n, width], the token row of each cell.
        width: of the keys; `queries` of the queries, 1 where only first tokens ask.
        mask: float32 [n, 1, 1, width], 0 or minus infinity.
    """

    sequences: np.ndarray
    lengths: np.ndarray
    key_rows: np.ndarray
    width: int
    queries: int
    mask: Tensor


class AttentionView:
    """How a batch's rows gather into rectangles, and how what they give gathers back."""

    def __init__(
        self,
        starts: np.ndarray,
        lengths: np.ndarray,
        rows: int,
        asking: Literal["all", "first"],
        device: torch.device,
        queries: tuple[np.ndarray, int] | None = None,
    ) -> None:
        """
        Args:
            starts, lengths: int64 [sequences], the token rows of each; rows of none may lie between them.
            rows: how many rows keys and values have.
            queries: where first tokens ask and their rows do not lie as the sequences do: int64
                [sequences], the row of each, and how many rows there are.
        """
        self.asking = asking
        self.device = device
        self._starts, self._lengths, self._rows = starts, lengths, rows
        self._queries = (np.arange(len(lengths)), len(lengths)) if queries is None else queries
        self._indices: dict[int, Indices] = {}

    @cached_property
    def rectangles(self) -> list[Rectangle]:
        """By ascending length: two, cut where they hold the fewest cells."""
        order = np.argsort(self._lengths, kind="stable")
        cut = _best_cut(_rounded(self._lengths[order]))
        return [self._rectangle(part) for part in (order[:cut], order[cut:]) if len(part)]

    def _rectangle(self, sequences: np.ndarray) -> Rectangle:
        lengths = self._lengths[sequences]
        width = int(_rounded(lengths.max(keepdims=True))[0])
        cells = np.arange(width)
        inside = cells < lengths[:, None]
        key_rows = self._starts[sequences][:, None] + np.where(inside, cells, 0)
        mask = np.where(inside, 0.0, -np.inf).astype(np.float32)[:, None, None, :]
        queries = 1 if self.asking == "first" else width
        return Rectangle(sequences, lengths, key_rows, width, queries, put(mask, self.device))

    @cached_property
    def extents(self) -> Extents:
        """What a kernel is told instead, which needs no rectangles."""
        from mtbert.kernels.attention import Extents

        asks_all = self.asking == "all"
        asking = self._starts if asks_all else self._queries[0]
        counts = self._lengths if asks_all else np.ones_like(self._lengths)
        starts, lengths, first, many = (
            put(each.astype(np.int32), self.device) for each in (self._starts, self._lengths, asking, counts)
        )
        return Extents(starts, lengths, first, many, int(self._lengths.max()), int(counts.max()))

    def indices(self, heads: int) -> Indices:
        """The gathers for so many heads, made once for a batch."""
        if heads not in self._indices:
            asking, asked = self._queries
            if self.asking == "all":
                asked = self._rows
            self._indices[heads] = Indices(self.rectangles, heads, asking, asked, self._rows, self.device)
        return self._indices[heads]


class Indices:
    """Flat gathers between rows by heads and the cells of all rectangles.

    Attributes:
        keys: per rectangle, int64 [n * heads * width]: which row and head a cell reads.
        queries: the same for the asking cells; the same tensors where every token asks.
        out: int64 [asked rows * heads]: the asking cell whose result a row takes.
        out_back: per rectangle, [n * heads * queries]: the row whose gradient a cell takes, or none.
        query_back: [asked rows * heads], the cell whose gradient a row takes, or none.
        key_back: [rows * heads], likewise for keys and values.

    "None" is the index one past the end, where a row of zeros stands.
    """

    def __init__(
        self,
        rectangles: Sequence[Rectangle],
        heads: int,
        first: np.ndarray,
        asked: int,
        rows: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            first: int64 [sequences], the asking row of each where only first tokens ask.
            asked: how many asking rows there are; `rows`: how many of keys and values.
        """
        head = np.arange(heads)[None, :, None]
        keys, queries, out_back = [], [], []
        cells_before = key_cells_before = 0
        total_cells = sum(len(r.sequences) * heads * r.queries for r in rectangles)
        total_key_cells = sum(len(r.sequences) * heads * r.width for r in rectangles)
        out = np.zeros((asked, heads), dtype=np.int64)
        query_back = np.full((asked, heads), total_cells, dtype=np.int64)
        key_back = np.full((rows, heads), total_key_cells, dtype=np.int64)
        for rectangle in rectangles:
            count, width = len(rectangle.sequences), rectangle.width
            flat = rectangle.key_rows[:, None, :] * heads + head  # [n, heads, width]
            inside = np.broadcast_to((np.arange(width) < rectangle.lengths[:, None])[:, None, :], flat.shape)
            key_cells = key_cells_before + np.arange(flat.size).reshape(flat.shape)
            key_back.reshape(-1)[flat[inside]] = key_cells[inside]
            if rectangle.queries == width:
                asking, valid = flat, inside
            else:
                asking = first[rectangle.sequences][:, None, None] * heads + head  # [n, heads, 1]
                valid = np.ones(asking.shape, dtype=bool)
            cells = cells_before + np.arange(asking.size).reshape(asking.shape)
            query_back.reshape(-1)[asking[valid]] = cells[valid]
            keys.append(flat.reshape(-1))
            queries.append(asking.reshape(-1))
            out_back.append(np.where(valid, asking, asked * heads).reshape(-1))
            cells_before += count * heads * rectangle.queries
            key_cells_before += flat.size
        covered = query_back < total_cells
        out[covered] = query_back[covered]
        if not covered.all():  # a row of no sequence reads what the last one before it got
            out = out[np.maximum.accumulate(np.where(covered.all(axis=1), np.arange(asked), 0))]

        self.keys = [put(index, device) for index in keys]
        self.queries = [put(index, device) for index in queries]
        self.out, self.out_back = put(out.reshape(-1), device), [put(index, device) for index in out_back]
        self.query_back = put(query_back.reshape(-1), device)
        self.key_back = put(key_back.reshape(-1), device)


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, view: AttentionView, factors: Factors | None
) -> Tensor:
    """softmax(Q Kᵀ / √d) V within each sequence and head (Vaswani et al. 2017, Eq. 1).

    Args:
        query: [asked rows, hidden]; asked rows are all rows, or one for each sequence.
        key, value: [rows, hidden].
        factors: gives what the probabilities are multiplied with, or None.

    Returns:
        [asked rows, hidden].
    """
    if kernels.usable(query):
        from mtbert.kernels import attention as fused

        mask = None if factors is None else factors.mask(view.extents.longest)
        return fused.attention(query, key, value, heads, view.extents, mask)
    result: Tensor = _Attention.apply(query, key, value, heads, view, factors)  # type: ignore[no-untyped-call]
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        heads: int,
        view: AttentionView,
        factors: Factors | None,
    ) -> Tensor:
        size = query.shape[-1] // heads
        scale = size**-0.5
        indices = view.indices(heads)
        flat_q, flat_k, flat_v = (tensor.reshape(-1, size) for tensor in (query, key, value))
        saved: list[Tensor | None] = []
        outs = []
        for at, rectangle in enumerate(view.rectangles):
            count = len(rectangle.sequences) * heads
            q = flat_q.index_select(0, indices.queries[at]).view(count, rectangle.queries, size)
            k = flat_k.index_select(0, indices.keys[at]).view(count, rectangle.width, size)
            v = flat_v.index_select(0, indices.keys[at]).view(count, rectangle.width, size)
            logits = torch.bmm(q, k.mT).view(-1, heads, rectangle.queries, rectangle.width)
            # adding a float32 mask to bfloat16 logits gives float32 in the same pass
            p = torch.softmax(torch.add(rectangle.mask, logits, alpha=scale), -1).to(q.dtype)
            p = p.view(count, rectangle.queries, rectangle.width)
            factor = None if factors is None else factors(rectangle, p.dtype)
            dropped = p if factor is None else p * factor
            outs.append(torch.bmm(dropped, v).view(-1, size))
            saved += [q, k, v, p, factor]
        ctx.save_for_backward(*saved)
        ctx.heads, ctx.view, ctx.scale = heads, view, scale
        gathered = outs[0] if len(outs) == 1 else torch.cat(outs)
        return gathered.index_select(0, indices.out).view(query.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heads, view = ctx.heads, ctx.view
        size = grad.shape[-1] // heads
        indices = view.indices(heads)
        zero = grad.new_zeros(1, size)
        flat = torch.cat([grad.reshape(-1, size), zero])
        parts: tuple[list[Tensor], ...] = ([], [], [])
        for at in range(len(view.rectangles)):
            q, k, v, p, factor = ctx.saved_tensors[5 * at : 5 * at + 5]
            g = flat.index_select(0, indices.out_back[at]).view(q.shape)
            dropped = p if factor is None else p * factor
            grad_p = torch.bmm(g, v.mT)
            if factor is not None:
                grad_p.mul_(factor)
            grad_logits = torch._softmax_backward_data(grad_p, p, -1, p.dtype)
            parts[0].append(torch.bmm(grad_logits, k).mul_(ctx.scale).view(-1, size))
            parts[1].append(torch.bmm(grad_logits.mT, q).mul_(ctx.scale).view(-1, size))
            parts[2].append(torch.bmm(dropped.mT, g).view(-1, size))
        backs = (indices.query_back, indices.key_back, indices.key_back)
        grads = (
            torch.cat([*part, zero]).index_select(0, back).view(-1, grad.shape[-1])
            for part, back in zip(parts, backs, strict=True)
        )
        return (*grads, None, None, None)


def _rounded(lengths: np.ndarray) -> np.ndarray:
    return -(-lengths // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def _best_cut(widths: np.ndarray) -> int:
    """Where to cut ascending widths in two so that cells are fewest; at the end if no cut helps."""
    count = len(widths)
    cuts = np.arange(1, count + 1)
    low, high = widths[cuts - 1].astype(np.int64), int(widths[-1])
    per_cell = 32  # a gathered row costs about as much as so many scores
    cost = cuts * low * (low + per_cell) + (count - cuts) * high * (high + per_cell)
    return int(count - np.argmin(cost[::-1]))  # the last of equals: no cut, if none helps
