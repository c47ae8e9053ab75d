"""Dropout by keys in one pass: the mask is made again for the gradient instead of being kept."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mtbert.kernels.random_bits import kept, mixed

_BLOCK = 1024


def drop(x: Tensor, keys: Tensor, columns: Tensor, thresholds: Tensor, scales: Tensor) -> Tensor:
    """x with dropped entries zero and the rest scaled up. [rows, features]

    Args:
        keys: int32 [rows, 1], a key for each row; `columns`: int32, a key for each pair of columns.
        thresholds: int16 [rows, 1] or [1, 1], as `draws.threshold16` gives them; `scales`: so, of x's type.
    """
    result: Tensor = _Drop.apply(x, keys, columns, thresholds, scales)
    return result


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *of: Tensor) -> Tensor:
        ctx.save_for_backward(*of)
        return _dropped(x, *of)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _dropped(grad, *ctx.saved_tensors), None, None, None, None


def _dropped(x: Tensor, keys: Tensor, columns: Tensor, thresholds: Tensor, scales: Tensor) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    rows, features = x.shape
    by_row = thresholds.numel() > 1
    grid = (rows, triton.cdiv(features, _BLOCK))
    _kernel[grid](x, out, keys, columns, thresholds, scales, features, by_row, _BLOCK)
    return out


@triton.jit
def _kernel(
    x,
    out,
    keys,
    columns,
    thresholds,
    scales,
    features,
    BY_ROW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < features
    key = tl.load(keys + row).to(tl.uint32, bitcast=True)
    pair = tl.load(columns + column // 2, mask=inside, other=0).to(tl.uint32, bitcast=True)
    of_row = row if BY_ROW else 0
    keep = kept(mixed(key ^ pair), column, tl.load(thresholds + of_row).to(tl.int32) + 32768)
    at = row.to(tl.int64) * features + column
    value = tl.load(x + at, mask=inside, other=0)
    scaled = (value.to(tl.float32) * tl.load(scales + of_row).to(tl.float32)).to(value.dtype)
    tl.store(out + at, tl.where(keep, scaled, 0.0), mask=inside)
