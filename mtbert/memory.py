"""A GPU's memory, and telling want of memory from other faults; needs the standard library alone."""

from __future__ import annotations

from typing import NamedTuple


class GpuMemory(NamedTuple):
    """Bytes of one GPU.

    Attributes:
        peak: that tensors of this process took at most so far.
        used: that are taken now, by whichever process, what allocators hold back and contexts included.
        total: all there are.
    """

    peak: int
    used: int
    total: int


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of Python, torch on any device or the allocator, is for want of memory."""
    text = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)
    )
