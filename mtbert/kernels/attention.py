"""Attention over sequences that lie end to end, without padding them (after Dao et al. 2022, Algorithm 1).

Neither the probabilities nor the dropout's mask are kept: the gradient makes them again from a row's log-sum.
Each sequence is computed by itself, so that it comes out the same whoever else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtbert.kernels.random_bits import kept, mixed

_ROWS = 32  # of queries or keys that a program holds at a time


@dataclass(frozen=True, eq=False)
class Extents:
    """Where the sequences lie.

    Attributes:
        starts, lengths: int32 [sequences], of keys and values.
        asking: int32 [sequences], the first asking row of each.
        counts: int32 [sequences], how many rows ask.
        longest, most: the largest of `lengths` and of `counts`.
    """

    starts: Tensor
    lengths: Tensor
    asking: Tensor
    counts: Tensor
    longest: int
    most: int


@dataclass(frozen=True, eq=False)
class Mask:
    """What dropout of the probabilities is a function of.

    Attributes:
        keys: int32 [rows, 1], of the token rows; `heads`: int32 [heads]; `positions`: int32, one for a pair.
        thresholds: int16 [rows, 1] or [1, 1], as `draws.threshold16` gives them; `scales`: so in float32.
    """

    keys: Tensor
    heads: Tensor
    positions: Tensor
    thresholds: Tensor
    scales: Tensor


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, extents: Extents, mask: Mask | None
) -> Tensor:
    """softmax(Q Kᵀ / √d) V within each sequence and head (Vaswani et al. 2017, Eq. 1).

    Args:
        query: [asked rows, hidden]; `key`, `value`: [rows, hidden].

    Returns:
        [asked rows, hidden], zero in rows of no sequence.
    """
    result: Tensor = _Attention.apply(query, key, value, heads, extents, mask)
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int, extents: Extents, mask: Mask | None
    ) -> Tensor:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out = torch.zeros_like(query)
        log_sums = torch.empty(len(query), heads, dtype=torch.float32, device=query.device)
        ctx.heads, ctx.extents, ctx.mask = heads, extents, mask
        blocks = triton.cdiv(extents.most, _ROWS)
        _forward[len(extents.starts), heads, blocks](
            query, key, value, out, log_sums, *_common(query, heads, extents, mask)
        )
        ctx.save_for_backward(query, key, value, out, log_sums)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        grad = grad.contiguous()
        grads = [torch.zeros_like(tensor) for tensor in (query, key, value)]
        common = _common(query, ctx.heads, ctx.extents, ctx.mask)
        sequences = len(ctx.extents.starts)
        saved = (query, key, value, out, log_sums, grad)
        _of_queries[sequences, ctx.heads, triton.cdiv(ctx.extents.most, _ROWS)](*saved, grads[0], *common)
        _of_keys[sequences, ctx.heads, triton.cdiv(ctx.extents.longest, _ROWS)](*saved, *grads[1:], *common)
        return (*grads, None, None, None)


def _common(query: Tensor, heads: int, extents: Extents, mask: Mask | None) -> tuple[Any, ...]:
    """The arguments that all kernels end with."""
    size = query.shape[-1] // heads
    where = (extents.starts, extents.lengths, extents.asking, extents.counts)
    nothing = extents.starts  # a pointer that is not read
    of_mask = (nothing,) * 5
    if mask is not None:
        of_mask = (mask.keys, mask.heads, mask.positions, mask.thresholds, mask.scales)
    by_row = mask is not None and mask.thresholds.numel() > 1
    return (
        *where,
        *of_mask,
        size**-0.5,
        heads,
        size,
        max(16, triton.next_power_of_2(size)),
        _ROWS,
        mask is not None,
        by_row,
    )


@triton.jit
def _factors(
    keys,
    by_head,
    positions,
    thresholds,
    scales,
    rows,
    inside,
    head,
    column,
    there,
    BY_ROW: tl.constexpr,
):
    """What dropout multiplies probabilities with. [rows, columns] of float32

    Args:
        rows: the token rows that ask, where `inside`; `column`: positions of keys, where `there`.
    """
    key = tl.load(keys + rows, mask=inside, other=0).to(tl.uint32, bitcast=True)
    asking = mixed(key ^ tl.load(by_head + head).to(tl.uint32, bitcast=True))
    pair = tl.load(positions + column // 2, mask=there, other=0).to(tl.uint32, bitcast=True)
    bits = mixed(asking[:, None] ^ pair[None, :])
    if BY_ROW:
        dropped = tl.load(thresholds + rows, mask=inside, other=0).to(tl.int32)[:, None] + 32768
        scale = tl.load(scales + rows, mask=inside, other=0)[:, None]
    else:
        dropped = tl.load(thresholds).to(tl.int32) + 32768
        scale = tl.load(scales)
    return tl.where(kept(bits, column[None, :], dropped), scale, 0.0)


@triton.jit
def _tile(pointer, rows, inside, head, heads, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """One head's part of some rows. [rows, WIDTH]"""
    feature = tl.arange(0, WIDTH)
    at = rows.to(tl.int64)[:, None] * (heads * SIZE) + head * SIZE + feature[None, :]
    return tl.load(pointer + at, mask=inside[:, None] & (feature < SIZE)[None, :], other=0.0)


@triton.jit
def _put_tile(pointer, value, rows, inside, head, heads, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """The inverse of `_tile`."""
    feature = tl.arange(0, WIDTH)
    at = rows.to(tl.int64)[:, None] * (heads * SIZE) + head * SIZE + feature[None, :]
    tl.store(
        pointer + at, value.to(pointer.dtype.element_ty), mask=inside[:, None] & (feature < SIZE)[None, :]
    )


@triton.jit
def _forward(
    query,
    key,
    value,
    out,
    log_sums,
    starts,
    lengths,
    askings,
    counts,
    keys,
    by_head,
    positions,
    thresholds,
    scales,
    scale,
    heads,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DROPS: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    """What some rows of a sequence get in one head."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = tl.load(starts + sequence), tl.load(lengths + sequence)
    asking, count = tl.load(askings + sequence), tl.load(counts + sequence)
    if block * ROWS >= count:
        return
    place = block * ROWS + tl.arange(0, ROWS)
    inside = place < count
    q = _tile(query, asking + place, inside, head, heads, SIZE, WIDTH)
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixture = tl.zeros([ROWS, WIDTH], tl.float32)
    begin = tl.cast(0, tl.int32)
    while begin < length:
        column = begin + tl.arange(0, ROWS)
        there = column < length
        k = _tile(key, start + column, there, head, heads, SIZE, WIDTH)
        v = _tile(value, start + column, there, head, heads, SIZE, WIDTH)
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        logits = tl.where(there[None, :], logits, float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, 1))
        p = tl.exp(logits - higher[:, None])
        shrink = tl.exp(highest - higher)
        total = total * shrink + tl.sum(p, 1)
        if DROPS:
            p *= _factors(
                keys,
                by_head,
                positions,
                thresholds,
                scales,
                start + place,
                inside,
                head,
                column,
                there,
                BY_ROW,
            )
        mixture = mixture * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        highest = higher
        begin += ROWS
    _put_tile(out, mixture / total[:, None], asking + place, inside, head, heads, SIZE, WIDTH)
    tl.store(log_sums + (asking + place) * heads + head, highest + tl.log(total), mask=inside)


@triton.jit
def _probabilities(q, k, v, g, o, log_sum, inside, there, scale):
    """Of a block of a sequence: the probabilities before dropout, G Vᵀ, and each row's Σ g·o."""
    p = tl.exp(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - log_sum[:, None])
    p = tl.where(inside[:, None] & there[None, :], p, 0.0)
    towards = tl.dot(g, tl.trans(v), input_precision="ieee")
    return p, towards, tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)


@triton.jit
def _of_queries(
    query,
    key,
    value,
    out,
    log_sums,
    grad,
    grad_query,
    starts,
    lengths,
    askings,
    counts,
    keys,
    by_head,
    positions,
    thresholds,
    scales,
    scale,
    heads,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DROPS: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    """The gradient of some asking rows of a sequence in one head."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = tl.load(starts + sequence), tl.load(lengths + sequence)
    asking, count = tl.load(askings + sequence), tl.load(counts + sequence)
    if block * ROWS >= count:
        return
    place = block * ROWS + tl.arange(0, ROWS)
    inside = place < count
    q = _tile(query, asking + place, inside, head, heads, SIZE, WIDTH)
    o = _tile(out, asking + place, inside, head, heads, SIZE, WIDTH)
    g = _tile(grad, asking + place, inside, head, heads, SIZE, WIDTH)
    log_sum = tl.load(log_sums + (asking + place) * heads + head, mask=inside, other=0.0)
    result = tl.zeros([ROWS, WIDTH], tl.float32)
    begin = tl.cast(0, tl.int32)
    while begin < length:
        column = begin + tl.arange(0, ROWS)
        there = column < length
        k = _tile(key, start + column, there, head, heads, SIZE, WIDTH)
        v = _tile(value, start + column, there, head, heads, SIZE, WIDTH)
        p, towards, kept_share = _probabilities(q, k, v, g, o, log_sum, inside, there, scale)
        if DROPS:
            towards *= _factors(
                keys,
                by_head,
                positions,
                thresholds,
                scales,
                start + place,
                inside,
                head,
                column,
                there,
                BY_ROW,
            )
        logits = p * (towards - kept_share[:, None]) * scale
        result += tl.dot(logits.to(k.dtype), k, input_precision="ieee")
        begin += ROWS
    _put_tile(grad_query, result, asking + place, inside, head, heads, SIZE, WIDTH)


@triton.jit
def _of_keys(
    query,
    key,
    value,
    out,
    log_sums,
    grad,
    grad_key,
    grad_value,
    starts,
    lengths,
    askings,
    counts,
    keys,
    by_head,
    positions,
    thresholds,
    scales,
    scale,
    heads,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DROPS: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    """The gradients of some keys and values of a sequence in one head."""
    sequence, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    start, length = tl.load(starts + sequence), tl.load(lengths + sequence)
    asking, count = tl.load(askings + sequence), tl.load(counts + sequence)
    if block * ROWS >= length:
        return
    column = block * ROWS + tl.arange(0, ROWS)
    there = column < length
    k = _tile(key, start + column, there, head, heads, SIZE, WIDTH)
    v = _tile(value, start + column, there, head, heads, SIZE, WIDTH)
    of_key = tl.zeros([ROWS, WIDTH], tl.float32)
    of_value = tl.zeros([ROWS, WIDTH], tl.float32)
    begin = tl.cast(0, tl.int32)
    while begin < count:
        place = begin + tl.arange(0, ROWS)
        inside = place < count
        q = _tile(query, asking + place, inside, head, heads, SIZE, WIDTH)
        o = _tile(out, asking + place, inside, head, heads, SIZE, WIDTH)
        g = _tile(grad, asking + place, inside, head, heads, SIZE, WIDTH)
        log_sum = tl.load(log_sums + (asking + place) * heads + head, mask=inside, other=0.0)
        p, towards, kept_share = _probabilities(q, k, v, g, o, log_sum, inside, there, scale)
        passed = p
        if DROPS:
            factors = _factors(
                keys,
                by_head,
                positions,
                thresholds,
                scales,
                start + place,
                inside,
                head,
                column,
                there,
                BY_ROW,
            )
            towards *= factors
            passed = p * factors
        logits = p * (towards - kept_share[:, None]) * scale
        of_value += tl.dot(tl.trans(passed).to(g.dtype), g, input_precision="ieee")
        of_key += tl.dot(tl.trans(logits).to(q.dtype), q, input_precision="ieee")
        begin += ROWS
    _put_tile(grad_key, of_key, start + column, there, head, heads, SIZE, WIDTH)
    _put_tile(grad_value, of_value, start + column, there, head, heads, SIZE, WIDTH)
