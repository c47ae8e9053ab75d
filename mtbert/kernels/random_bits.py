"""The random bits of `mtbert.tensor_draws`, within a kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mixed(keys):
    """`tensor_draws.mix32` of uint32 keys."""
    keys = keys * 0x21F0AAAD
    keys = keys ^ (keys >> 15)
    keys = keys * 0x735A2D97
    return keys ^ (keys >> 15)


@triton.jit
def kept(pairs, columns, dropped):
    """Where `tensor_draws.keep_factors` keeps an entry.

    Args:
        pairs: uint32, the mixed bits of the pair of columns that each entry is in.
        columns: of each entry, whose parity says which half of the bits is its own.
        dropped: how many of 65536 are dropped.
    """
    half = tl.where(columns % 2 == 1, pairs >> 16, pairs & 0xFFFF)
    return (half ^ 0x8000).to(tl.int32) >= dropped
