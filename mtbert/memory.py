"""Telling want of memory from other faults; needs the standard library alone."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of Python, torch on any device or the allocator, is for want of memory."""
    text = str(error).lower()
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)
    )
