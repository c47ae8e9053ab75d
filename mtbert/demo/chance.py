"""Draws that are the same on every machine, in every process and under every version of Python."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


class Chance:
    """Draws keyed by what they are for.

    Python promises a stable stream for `random.Random(int).random()` alone, hence all is derived from it.
    """

    def __init__(self, *key: int | str) -> None:
        text = "\x1f".join(map(str, key))
        self._random = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def uniform(self) -> float:
        """In [0, 1)."""
        return self._random.random()

    def holds(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def below(self, bound: int) -> int:
        """One of 0 … bound - 1, all equally likely."""
        return int(self._random.random() * bound)

    def choose(self, options: Sequence[Option]) -> Option:
        """One of the options, all equally likely."""
        return options[self.below(len(options))]

    def choose_weighted(self, options: Sequence[tuple[Option, float]]) -> Option:
        """One of the options, each with its own weight."""
        left = self._random.random() * sum(weight for _, weight in options)
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def choose_other(self, options: Sequence[Option], *taken: Option | None) -> Option:
        """One of the options that is none of those taken."""
        return self.choose([option for option in options if option not in taken])


def reserved(*parts: str) -> bool:
    """Whether a combination is kept out of the training examples: one in five, by its hash."""
    return hashlib.sha256("\x1f".join(parts).encode()).digest()[0] % 5 == 0
