"""Randomness as a function of (seed, purpose, step), never of a generator's history or of a neighbour.

Order, initial values and dropout masks of a run are the same alone, in a pack, and after a resume. What is
drawn as tensors is in `tensor_draws`: here numpy is enough.
"""

from __future__ import annotations

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key64(*parts: int | str) -> int:
    """64 bits that depend on every part and on their order."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*parts: int | str) -> np.random.Generator:
    """A generator for one purpose; Philox is counter-based and specified, so streams do not drift."""
    return np.random.Generator(np.random.Philox(key=key64(*parts)))


def splitmix64(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014), elementwise. uint64 in and out."""
    with np.errstate(over="ignore"):
        mixed = values + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def row_keys(key: int, rows: int) -> np.ndarray:
    """A 32-bit key for each of a member's rows in a step. int32 [rows]"""
    mixed = splitmix64(np.arange(rows, dtype=np.uint64) ^ np.uint64(key))
    return (mixed >> np.uint64(32)).astype(np.uint32).view(np.int32)


def threshold16(rate: float) -> tuple[int, float]:
    """The signed 16-bit number below which a dropout rate drops an entry, and the scale of the rest."""
    dropped = min(round(rate * 65536), 65535)
    return dropped - 32768, 65536 / (65536 - dropped)
