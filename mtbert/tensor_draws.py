"""What is drawn as tensors: initial values, dropout factors, normal numbers; each a function of its key."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mtbert.draws import key64, splitmix64


def torch_generator(*parts: int | str) -> torch.Generator:
    """A generator on the CPU for initial values, which are drawn there whatever the device."""
    return torch.Generator().manual_seed(key64(*parts) & 0x7FFF_FFFF_FFFF_FFFF)


@lru_cache(maxsize=1024)
def column_keys(site: str, columns: int, device: str) -> Tensor:
    """A 32-bit key for each pair of columns of a site. int32 [columns]"""
    mixed = splitmix64(np.arange(columns, dtype=np.uint64) ^ np.uint64(key64("columns", site)))
    keys = torch.from_numpy((mixed >> np.uint64(32)).astype(np.uint32).view(np.int32))
    return keys.to(device)


def mix32(keys: Tensor) -> Tensor:
    """Two rounds of multiply and xor-shift (Wellons's lowbias32), in place. int32, any shape"""
    for factor in (0x21F0AAAD, 0x735A2D97):
        keys.mul_(factor)
        keys.bitwise_xor_((keys >> 15).bitwise_and_(0x1FFFF))  # the shift of a signed number drags its sign
    return keys


def keep_factors(
    rows: Tensor, columns: Tensor, threshold: Tensor | int, scale: Tensor | float, dtype: torch.dtype
) -> Tensor:
    """Dropout factors, zero or `scale`: 16 random bits an entry, a function of its row's and column's key.

    Args:
        rows: int32 [..., 1], a key for each row.
        columns: int32 [pairs], a key for each pair of columns.
        threshold: entries whose bits are below it are dropped; one, or one for each row.

    Returns:
        [..., 2 * pairs] of `dtype`.
    """
    bits = mix32(rows ^ columns).view(torch.int16)
    kept = torch.empty(bits.shape, dtype=dtype, device=bits.device)
    return torch.ge(bits, threshold, out=kept).mul_(scale)


def normal(rows: Tensor, purpose: str, columns: int, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers (Box & Muller 1958), each a function of its row's key and its column.

    Args:
        rows: int32 [rows, 1], a key for each row.

    Returns:
        [rows, columns] of `dtype`, none beyond 6.
    """
    pairs = -(-columns // 2)
    distance, angle = (
        _uniform(mix32(rows ^ column_keys(f"{purpose}.{name}", pairs, str(rows.device))), dtype)
        for name in ("distance", "angle")
    )
    distance = distance.log_().mul_(-2).sqrt_()
    angle = angle.mul_(2 * math.pi)
    return torch.cat([distance * angle.cos(), distance * angle.sin()], dim=1)[:, :columns]


def _uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers between 0 and 1, of 23 bits: so many float32 holds exactly, the half added included."""
    return (bits >> 9).to(dtype).add_(2**22 + 0.5).mul_(2.0**-23)
